"""A world in which big tensors have no data: what a pipeline computes with is fake, what it decides by is real.

Small tensors made of plain numbers (timesteps, sigmas, token ids, masks) are computed for real, so that control flow
is the real one; whatever is large or depends on weights is a FakeTensor on the CPU: no memory, no arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensor
from torch.nn.attention import flex_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from roost.probes.dry_run.fake_ops import CPU, FakeOps, data_of, tensors_in

# Real tensors stay real up to this many elements: far more than any schedule or prompt, far less than any latents.
REAL_ELEMENTS = 1 << 16

_ATEN = torch.ops.aten
_DEVICE = torch.ops.prim.device.default
_SCALAR_READ = _ATEN._local_scalar_dense.default
_UNKNOWN_SHAPES = (DataDependentOutputException, DynamicOutputShapeException)
_DATA_READS = frozenset((torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__))
_VALUE_READS = frozenset(
    (
        _SCALAR_READ,
        _ATEN.nonzero.default,
        _ATEN.masked_select.default,
        _ATEN.equal.default,
        _ATEN.unique_dim.default,
        _ATEN._unique2.default,
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
        self._entered.enter_context(_eager_flex_attention())
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
        kwargs = kwargs or {}
        if func in _VALUE_READS:
            self.value_reads += 1
        with torch._C.DisableTorchFunction():  # looking at shapes and storages must not come by _DataReads
            out = self._run(func, args, kwargs)
            if self.observer is not None:
                self.observer.record(func, args, kwargs, out)
        return out

    def empty(self, size: Iterable[int], stride: Iterable[int], dtype: torch.dtype) -> torch.Tensor:
        """A fake tensor of its own storage."""
        with _disable_current_modes():
            return self.fake_ops.empty(size, stride, dtype)

    def adopt(self, module: torch.nn.Module) -> None:
        """Makes every weight of ``module`` fake, small ones too: what depends on weights is unknown.

        Buffers that no file holds are made of plain numbers, like positions, and stay.
        """
        fakes: dict[int, torch.nn.Parameter] = {}  # tied weights stay one
        weights = list(module.parameters())
        for weight in weights:
            fakes[id(weight)] = torch.nn.Parameter(self._fake_like(weight), requires_grad=False)
        for owner in module.modules():
            for name, own in owner._parameters.items():
                if own is not None:
                    owner._parameters[name] = fakes[id(own)]
            for name, buffer in owner._buffers.items():
                if buffer is not None and name not in owner._non_persistent_buffers_set:
                    owner._buffers[name] = self._fake_like(buffer)

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
        if func is _SCALAR_READ:
            return torch.zeros((), dtype=args[0].dtype).item()
        if isinstance(kwargs.get("generator"), torch.Generator):
            kwargs = {**kwargs, "generator": None}  # a generator of the CPU can't fill what has no data
        try:
            return self.fake_ops.run(func, args, kwargs, all_fake=all_fake)
        except _UNKNOWN_SHAPES:  # zeros stand for what is fake; a real mask keeps its values, and so the true shape
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


@contextmanager
def _eager_flex_attention() -> Iterator[None]:
    """Has flex attention run as the operations that it is made of where nobody compiles it: dense scores.

    It would have its operator compiled first, which fake tensors don't survive. Both names are private to torch.
    """
    operator: Any = vars(flex_attention)["flex_attention_hop"]
    dense = operator.py_kernels[torch._C.DispatchKey.CompositeExplicitAutograd]
    with ExitStack() as undo:
        for name, value in (("_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True), ("flex_attention_hop", dense)):
            undo.callback(setattr, flex_attention, name, getattr(flex_attention, name))
            setattr(flex_attention, name, value)
        yield


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
    return not func.is_view and not func._schema.is_mutable
