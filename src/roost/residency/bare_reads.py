"""Weights that a component's own code reads by itself, past the forward of the block that has them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from roost.errors import RoostError
from roost.residency.census import TRUNK
from roost.residency.component import HeldComponent

# What a tensor says about itself without its values.
_PROPERTIES = ("dtype", "device", "shape", "ndim", "layout", "is_cuda", "requires_grad", "grad", "is_meta")
_METADATA = frozenset(
    (
        *(getattr(torch.Tensor, name).__get__ for name in _PROPERTIES),
        *(torch.Tensor.size, torch.Tensor.dim, torch.Tensor.numel, torch.Tensor.stride, torch.Tensor.is_floating_point),
        *(torch.Tensor.is_complex, torch.Tensor.element_size, torch.Tensor.__len__),
    )
)
_AUGMENTED = frozenset(("__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__"))


class BareReads(TorchFunctionMode):
    """While a component's code runs, brings in each block whose weights are read outside that block's forward.

    Only for components whose class is of neither library: the libraries' read blocks by their forwards. It costs a
    look at the arguments of each torch function.
    """

    def __init__(self, component: HeldComponent) -> None:
        super().__init__()
        self._component = component
        self._running = False
        self._units: Mapping[int, str] = {}  # the unit of each weight, by the weight's identity

    def watching(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call``, watched unless it runs inside one that is."""
        return functools.partial(self._run, call)

    def _run(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._running or any(part._compiled_call_impl is not None for part in self._component.parts):
            return call(*args, **kwargs)
        entries = [(name, entry) for name, unit in self._component.units.items() for entry in unit.entries]
        self._units = {id(each): name for name, entry in entries for each in entry.objects}
        self._running = True
        try:
            with self:
                return call(*args, **kwargs)
        finally:
            self._running = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func not in _METADATA:
            _check_keeps(self._component, func, args)
            for tensor in _tensors((args, *(kwargs or {}).values())):
                unit = self._units.get(id(tensor), TRUNK)
                if unit != TRUNK:  # the trunk is there for the whole call
                    self._component.running.keep(unit)
        return func(*args, **(kwargs or {}))


def _check_keeps(component: HeldComponent, func: Any, args: tuple[Any, ...]) -> None:
    """RoostError for a weight that is changed while its copy on the device is not the one that counts."""
    name = getattr(func, "__name__", "")
    writes = name in _AUGMENTED or (name.endswith("_") and not name.endswith("__"))
    if writes and not component.resident and args and isinstance(args[0], torch.nn.Parameter):
        raise RoostError(
            f"{component.name} changes a weight of its own by {name}() while a Roost plan holds it, and that would be"
            f" lost; detach the plan first, or plan it with --set {component.name}=resident."
        )


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
