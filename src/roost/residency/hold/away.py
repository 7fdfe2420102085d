"""Components that another process has: modules that look like theirs to a pipeline, and have no weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from roost.errors import RoostError
from roost.pipelines.internals.of_accelerate import HOOK
from roost.pipelines.internals.of_torch import CONVERT, METADATA, as_engine, buffers_of, children_of, parameters_of
from roost.plan import ComponentPlan
from roost.residency.weights.census import named_tensors
from roost.residency.weights.foreign import ExecutionDevice
from roost.residency.weights.packing import nothing_like

WITHOUT_ROLES = "plan without roles, such as with --layout replicas"  # what helps where workers can't share a pipeline

# Pipelines read such values themselves, as the means of latents; larger ones only a component's own code does.
_SMALL_BYTES = 16 * 1024
# What may be asked of a tensor that isn't there.
_FORMS = METADATA.union(
    (
        *("shape", "dtype", "device", "layout", "ndim", "itemsize", "nbytes", "names"),
        *("requires_grad", "requires_grad_", "grad"),
        *("is_cuda", "is_cpu", "is_meta", "is_sparse", "is_quantized", "is_leaf", "is_floating_point", "is_complex"),
        *("is_contiguous", "is_inference", "size", "dim", "numel", "nelement", "element_size", "stride"),
        *("storage_offset", "__hash__", "__len__"),
    )
)


class AwayComponent:
    """A component's ``module`` with its configs, shapes and dtypes, on ``device``; its weights take no memory.

    A pipeline may convert it, as it would the real one. Calls of it must be routed elsewhere; who reads one of its
    weights is refused, but for the small ones that ``take`` has brought.
    """

    def __init__(self, name: str, module: torch.nn.Module, plan: ComponentPlan, device: torch.device) -> None:
        self.name, self.module, self.planned = name, module, plan
        for part in module.modules():
            _convert(part, lambda tensor: _absent(name, tensor, device))
            vars(part)[CONVERT] = functools.partial(_converted, part)
        vars(module)[HOOK] = ExecutionDevice(device)

    def take(self, values: Mapping[str, torch.Tensor]) -> None:
        """Puts the values of small weights, by name, in their places."""
        for path, part in self.module.named_modules():
            for table in (parameters_of(part), buffers_of(part)):
                for name in table:
                    value = values.get(f"{path}.{name}" if path else name)
                    if value is not None:
                        _put(table, name, value, parameter=table is parameters_of(part))


def dtype_of(module: torch.nn.Module) -> torch.dtype | None:
    """The dtype of all its floating parameters; None where they have several."""
    found = {each.dtype for each in module.parameters() if each.is_floating_point()}
    return found.pop() if len(found) == 1 else None


def small_values(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a module that a pipeline may read, in host memory; plain tensors, whatever holds them."""
    with as_engine():
        return {
            name: tensor.detach().to("cpu", copy=True)
            for name, tensor in named_tensors(module)
            if type(tensor) is not _Absent and tensor.nbytes <= _SMALL_BYTES
        }


class _Absent(torch.Tensor):
    """A weight that isn't here: only its form may be asked for."""

    owner: str

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"<weight of {self.owner}, which another worker has>"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        name = getattr(func, "__name__", "")
        asked = getattr(getattr(func, "__self__", None), "__name__", "") if name == "__get__" else name
        if asked in _FORMS:
            with as_engine():
                return func(*args, **(kwargs or {}))
        given = [*args, *(kwargs or {}).values()]
        single = [one for each in given for one in (each if isinstance(each, list | tuple) else (each,))]
        owners = {each.owner for each in single if isinstance(each, _Absent)}
        raise RoostError(
            f"the pipeline reads weights of {', '.join(sorted(owners))} itself, which another worker has;"
            f" {WITHOUT_ROLES}."
        )


def _absent(owner: str, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    with as_engine():
        made = nothing_like(tensor, device).as_subclass(_Absent)
    vars(made)["owner"] = owner
    return made


def _converted(
    part: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True
) -> torch.nn.Module:
    """In the place of a module's own conversion, which would give every weight memory."""
    for child in children_of(part).values() if recurse else ():
        if child is not None:
            _converted(child, change)
    _convert(part, lambda tensor: _changed(tensor, change))
    return part


def _changed(tensor: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """A small weight converted as ever; of one that isn't here, the dtype."""
    if not isinstance(tensor, _Absent):
        return change(tensor)
    dtype = change(torch.empty((), dtype=tensor.dtype)).dtype
    return _absent(tensor.owner, torch.empty(tensor.shape, dtype=dtype, device="meta"), tensor.device)


def _convert(part: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    for table in (parameters_of(part), buffers_of(part)):
        for name, tensor in table.items():
            if tensor is not None:
                _put(table, name, change(tensor), parameter=table is parameters_of(part))


def _put(table: Any, name: str, tensor: torch.Tensor, *, parameter: bool) -> None:
    """Into a module's table, where a parameter that isn't here is none."""
    table[name] = torch.nn.Parameter(tensor, False) if parameter and not isinstance(tensor, _Absent) else tensor
