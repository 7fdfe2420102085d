"""Operations on fake tensors, fast: results' layouts are remembered, views are taken directly.

FakeTensorMode decides every result once; a million-operation VAE asks for the same few thousand again and again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from roost.pipelines.internals.of_fake_tensors import FakeTensor, FakeTensorMode, as_meta
from roost.pipelines.internals.of_operators import schema_of
from roost.pipelines.internals.of_torch import storage_key, without_modes

CPU = torch.device("cpu")

_Way = Literal["in place", "view", "new", "other"]
_Layout = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]
_UNKNOWN = object()


@dataclass(frozen=True, slots=True)
class _Remembered:
    """Layouts of the results, each a storage of its own; ``container`` is None for a single one."""

    layouts: tuple[_Layout, ...]
    container: type | None


class FakeOps:
    """Runs operations that have at least one fake argument."""

    def __init__(self) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._results: dict[Any, _Remembered | None] = {}  # None: not to be remembered

    def run(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, all_fake: bool) -> Any:
        """The operation's result; raises FakeTensorMode's errors for a shape that depends on data."""
        way = _way(func) if all_fake else "other"
        if way == "in place":
            return args[0]
        if way == "view":
            return self._view(func, args, kwargs)
        if way == "new":
            return self._new(func, args, kwargs)
        return self._mode.dispatch(func, (), args, kwargs)

    def empty(self, size: Iterable[int], stride: Iterable[int], dtype: torch.dtype) -> torch.Tensor:
        """A fake tensor of its own storage; call it where no mode is active."""
        shape = torch.empty_strided(tuple(size), tuple(stride), dtype=dtype, device="meta")
        return FakeTensor(self._mode, shape, CPU)

    def view_of(self, base: torch.Tensor, size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> torch.Tensor:
        """A view of a fake tensor's storage; call it where no mode is active."""
        view: torch.Tensor = self._view(torch.ops.aten.as_strided.default, (base, size, stride, offset), {})
        return view

    def _view(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        with as_meta(self._mode):
            out = func(*args, **kwargs)
        if isinstance(out, torch.Tensor):
            return FakeTensor(self._mode, out, CPU)
        return type(out)(FakeTensor(self._mode, each, CPU) for each in out)

    def _new(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        try:
            key = (func, _described(args), _described(kwargs.items()))
            remembered = self._results.get(key, _UNKNOWN)
        except TypeError:  # an argument that can't be a key
            return self._mode.dispatch(func, (), args, kwargs)
        if isinstance(remembered, _Remembered):
            made = [self.empty(*layout) for layout in remembered.layouts]
            return made[0] if remembered.container is None else remembered.container(made)
        out = self._mode.dispatch(func, (), args, kwargs)
        if remembered is _UNKNOWN:
            self._results[key] = _remember(args, kwargs, out)
        return out


@cache
def _way(func: Any) -> _Way:
    schema = schema_of(func)
    if func.is_view:
        return "view"
    if not schema.is_mutable:
        return "new"
    written = [_is_written(each) for each in schema.arguments]
    writes_only_first = written[0] and sum(written) == 1
    name = func.overloadpacket.__name__
    changes_layout = torch.Tag.inplace_view in func.tags or name.startswith(("resize", "set_"))
    if writes_only_first and name.endswith("_") and not changes_layout:
        return "in place"
    return "other"


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and bool(argument.alias_info.is_write)


def _described(values: Iterable[Any]) -> tuple[Any, ...]:
    """A key of arguments: layouts for tensors, type and value for the rest."""
    return tuple(_describe(each) for each in values)


def _describe(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.stride(), value.dtype)
    if isinstance(value, list | tuple):
        return _described(value)
    return (type(value), value)


def _remember(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> _Remembered | None:
    results = [out] if isinstance(out, torch.Tensor) else list(out) if isinstance(out, list | tuple) else []
    if not results or not all(isinstance(each, FakeTensor) and _fills_its_storage(each) for each in results):
        return None
    given = {storage_key(each.untyped_storage()) for each in tensors_in((*args, *kwargs.values()))}
    storages = {storage_key(each.untyped_storage()) for each in results}
    if len(storages) < len(results) or storages & given:
        return None
    layouts = tuple((tuple(each.shape), each.stride(), each.dtype) for each in results)
    container = None if isinstance(out, torch.Tensor) else list if isinstance(out, list) else tuple
    return _Remembered(layouts, container)


def _fills_its_storage(tensor: torch.Tensor) -> bool:
    span = span_of(tensor.shape, tensor.stride()) * tensor.element_size()
    return tensor.storage_offset() == 0 and span == tensor.untyped_storage().nbytes()


def span_of(size: Iterable[int], stride: Iterable[int]) -> int:
    """Elements of storage from a layout's first to its last."""
    extents = list(size)
    return 0 if 0 in extents else 1 + sum((each - 1) * step for each, step in zip(extents, stride, strict=True))


def tensors_in(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors among an operation's arguments or results, those in lists included."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def data_of(tensor: torch.Tensor) -> torch.Tensor:
    """Plausible data for a fake tensor: zeros, and true for masks."""
    fill = torch.ones if tensor.dtype == torch.bool else torch.zeros
    with without_modes():
        return fill(tuple(tensor.shape), dtype=tensor.dtype)
