"""A world in which big tensors have no data: what a pipeline computes with is fake, what it decides by is real.

Small tensors made of plain numbers (timesteps, sigmas, token ids, masks) are computed for real, so that control flow
is the real one; whatever is large or depends on weights is a FakeTensor on the CPU: no memory, no arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch.overrides import TorchFunctionMode

from roost.pipelines.formats.packed_tensors import computes_with_parts, is_packed, likeness, parts_of
from roost.pipelines.internals.of_fake_tensors import UNKNOWN_SHAPES, FakeTensor, eager_flex_attention
from roost.pipelines.internals.of_operators import SCALAR_READ, UNIQUE, schema_of
from roost.pipelines.internals.of_torch import (
    TorchDispatchMode,
    buffers_of,
    parameters_of,
    unfiled_names,
    without_functions,
    without_modes,
)
from roost.probes.dry_run.fake_ops import CPU, FakeOps, data_of, tensors_in

# Real tensors stay real up to this many elements: far more than any schedule or prompt, far less than any latents.
REAL_ELEMENTS = 1 << 16

_ATEN = torch.ops.aten
_DEVICE = torch.ops.prim.device.default
_DATA_READS = frozenset((torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__))
_VALUE_READS = frozenset(
    (
        SCALAR_READ,
        _ATEN.nonzero.default,
        _ATEN.masked_select.default,
        _ATEN.equal.default,
        _ATEN.unique_dim.default,
        UNIQUE,
        _ATEN.unique_consecutive.default,
        _ATEN.repeat_interleave.Tensor,
    )
)


class OpObserver(Protocol):
    """Hears of every operation after it ran."""

    def record(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None: ...


class FakeWorld(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's modes have no types
    """While entered, tensors are fake as the module says. ``observer`` hears of every operation when it is set.

    ``value_reads`` counts the times that values of tensors, real or not, decided something.
    """

    def __init__(self, real_elements: int = REAL_ELEMENTS) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.real_elements = real_elements
        self.observer: OpObserver | None = None
        self.value_reads = 0
        self.fake_ops = FakeOps()
        self._function_mode = _DataReads(self)
        self._entered = ExitStack()

    def __enter__(self) -> FakeWorld:
        self._entered.enter_context(self._function_mode)
        self._entered.enter_context(eager_flex_attention())
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exc_info: Any) -> None:
        super().__exit__(*exc_info)  # type: ignore[no-untyped-call]
        self._entered.close()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is _DEVICE:  # more than half of all calls
            return CPU
        if any(map(computes_with_parts, types)):
            return NotImplemented  # a packed weight's class computes with its parts, and comes here with those
        kwargs = kwargs or {}
        if func in _VALUE_READS:
            self.value_reads += 1
        with without_functions():  # looking at shapes and storages must not come by _DataReads
            out = self._run(func, args, kwargs)
            if self.observer is not None:
                self.observer.record(func, args, kwargs, out)
        return out

    def empty(self, size: Iterable[int], stride: Iterable[int], dtype: torch.dtype) -> torch.Tensor:
        """A fake tensor of its own storage."""
        with without_modes():
            return self.fake_ops.empty(size, stride, dtype)

    def adopt(self, module: torch.nn.Module) -> None:
        """Makes every weight of ``module`` fake, small ones too: what depends on weights is unknown.

        Buffers that no file holds are made of plain numbers, like positions, and stay.
        """
        weights = list(module.parameters())
        fakes: Any = {id(weight): self.fake_of(weight) for weight in weights}  # tied weights stay one
        for owner in module.modules():
            for name, own in parameters_of(owner).items():
                if own is not None:
                    parameters_of(owner)[name] = fakes[id(own)]
            for name, buffer in buffers_of(owner).items():
                if buffer is not None and name not in unfiled_names(owner):
                    buffers_of(owner)[name] = self.fake_of(buffer)

    def fake_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """What stands for a weight or a buffer: alike, and of storages of its own without data."""
        fakes = [self._fake_like(part) for _, part in parts_of(tensor)]
        if is_packed(tensor):
            with without_modes():
                return likeness(tensor, fakes)
        return torch.nn.Parameter(fakes[0], requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else fakes[0]

    def _fake_like(self, tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        return self.empty(tensor.shape, tensor.stride(), tensor.dtype)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        fake = [isinstance(each, FakeTensor) for each in tensors_in((*args, *kwargs.values()))]
        if any(fake):
            return self._run_fake(func, args, kwargs, all_fake=all(fake))
        if not fake:
            return self._make(func, args, kwargs)
        out = func(*args, **kwargs)
        if isinstance(out, torch.Tensor) and out.numel() > self.real_elements and _makes_new_storage(func):
            return self.empty(out.shape, out.stride(), out.dtype)
        return out

    def _run_fake(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, all_fake: bool) -> Any:
        if func is SCALAR_READ:
            return torch.zeros((), dtype=args[0].dtype).item()
        if isinstance(kwargs.get("generator"), torch.Generator):
            kwargs = {**kwargs, "generator": None}  # a generator of the CPU can't fill what has no data
        try:
            return self.fake_ops.run(func, args, kwargs, all_fake=all_fake)
        except UNKNOWN_SHAPES:  # zeros stand for what is fake; a real mask keeps its values, and so the true shape
            self.value_reads += 1
            out = func(*_with_data(args), **dict(zip(kwargs, _with_data(kwargs.values()), strict=True)))
            return self.empty(out.shape, out.stride(), out.dtype) if isinstance(out, torch.Tensor) else out

    def _make(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """A new tensor of plain numbers: real when it is small."""
        without = {**kwargs, "generator": None} if "generator" in kwargs else kwargs
        made = self.fake_ops.run(func, args, without, all_fake=True)
        if isinstance(made, torch.Tensor) and made.numel() > self.real_elements:
            return made
        return func(*args, **kwargs)


class _DataReads(TorchFunctionMode):
    """Lets numpy and lists be made of fake tensors, and counts such reads of any tensor."""

    def __init__(self, world: FakeWorld) -> None:
        super().__init__()
        self._world = world

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _DATA_READS:
            self._world.value_reads += 1
            if isinstance(args[0], FakeTensor):
                args = (data_of(args[0]), *args[1:])
        return func(*args, **(kwargs or {}))


def _with_data(values: Iterable[Any]) -> list[Any]:
    def real(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(real(each) for each in value)
        return data_of(value) if isinstance(value, FakeTensor) else value

    return [real(value) for value in values]


def _makes_new_storage(func: Any) -> bool:
    return not func.is_view and not schema_of(func).is_mutable
