"""Stand-ins for a file's tensors that know which of its values they hold, whatever a converter cuts and joins.

A stand-in has no data. torch itself works out the sizes, strides and offsets of what a converter makes of it, so
that nothing here knows what ``chunk`` or ``permute`` mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from roost.facts.weight_files import Piece, Strided
from roost.pipelines.internals.of_torch import as_engine, storage_key

_JOINS = frozenset(("cat", "concat", "concatenate"))
_COPIES = frozenset(("clone", "contiguous", "reshape", "flatten"))


class NotRecorded(Exception):
    """A converter computes a tensor in a way that no byte ranges can say. The message names the operation."""


@dataclass(frozen=True, slots=True)
class Run:
    """Values ``start`` to ``stop`` of a source, counted as they lie in the file."""

    source: str
    start: int
    stop: int


class StandIn(torch.Tensor):
    """A tensor without data. ``runs`` fill its storage from the first value on; ``reordered`` views them first."""

    runs: tuple[Run, ...]
    reordered: Strided | None

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        with as_engine():
            made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            return _of(made, func, args, kwargs or {})
        if isinstance(made, list | tuple) and any(isinstance(each, torch.Tensor) for each in made):
            return tuple(_of(each, func, args, kwargs or {}) for each in made)
        return made


def stand_in(source: str, shape: Sequence[int]) -> StandIn:
    """A stand-in for the file's tensor of that name."""
    return _stand_in(torch.empty(tuple(shape), device="meta"), (Run(source, 0, math.prod(shape)),), None)


@dataclass(frozen=True, slots=True)
class Made:
    """What a tensor is made of: whole rows of sources, and how their values are reordered, if they are."""

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    strided: Strided | None


def made_of(tensor: StandIn, shapes: Mapping[str, Sequence[int]]) -> Made:
    """What a converter made of the file's tensors, whose shapes are ``shapes``. Raises NotRecorded."""
    shape = tuple(tensor.shape)
    if tensor.reordered is not None:
        if not _is_whole(tensor):
            raise NotRecorded("a part of a reordered tensor")
        return Made(shape, _pieces(tensor.runs, shapes), tensor.reordered)
    if _is_contiguous(tensor):
        cut = _cut(tensor.runs, _offset(tensor), tensor.numel())
        if all(_is_rows(run, shapes[run.source]) for run in cut):
            return Made(shape, _pieces(cut, shapes), None)
    strided = Strided(size=shape, stride=tuple(tensor.stride()), offset=_offset(tensor))
    return Made(shape, _pieces(tensor.runs, shapes), strided)


def _of(made: torch.Tensor, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> StandIn:
    """The stand-in for what torch made of others."""
    name = getattr(func, "__name__", str(func))
    base = next((each for each in args if isinstance(each, StandIn)), None)
    if name in _JOINS:
        return _joined(made, args[0] if args else kwargs["tensors"])
    if base is None:
        raise NotRecorded(f"{name!r} of no stand-in")
    if storage_key(made.untyped_storage()) == storage_key(base.untyped_storage()):
        return _stand_in(made, base.runs, base.reordered)
    if name not in _COPIES or made.dtype != base.dtype:
        raise NotRecorded(f"{name!r}")
    return _copied(made, base)


def _joined(made: torch.Tensor, parts: Sequence[Any]) -> StandIn:
    """Tensors one below another."""
    runs: list[Run] = []
    rows = sum(each.shape[0] for each in parts if each.ndim)
    for each in parts:
        if not isinstance(each, StandIn) or each.reordered is not None or not _is_contiguous(each):
            raise NotRecorded("'cat' of reordered tensors")
        runs += _cut(each.runs, _offset(each), each.numel())
    if made.shape[0] != rows:
        raise NotRecorded("'cat' along another dimension than the first")
    return _stand_in(made, tuple(runs), None)


def _copied(made: torch.Tensor, base: StandIn) -> StandIn:
    """A copy in order of its values, whose storage is its own."""
    if base.reordered is not None:
        if not _is_whole(base):
            raise NotRecorded("a part of a reordered tensor")
        return _stand_in(made, base.runs, base.reordered)
    if _is_contiguous(base):
        return _stand_in(made, _cut(base.runs, _offset(base), base.numel()), None)
    inner = Strided(size=tuple(base.shape), stride=tuple(base.stride()), offset=_offset(base))
    return _stand_in(made, base.runs, inner)


def _stand_in(meta: torch.Tensor, runs: tuple[Run, ...], inner: Strided | None) -> StandIn:
    with as_engine():
        made: StandIn = meta.as_subclass(StandIn)
    made.runs, made.reordered = runs, inner
    return made


def _cut(runs: Sequence[Run], offset: int, count: int) -> tuple[Run, ...]:
    """``count`` values of the runs' from ``offset`` on; runs that go on in the file become one."""
    found: list[Run] = []
    for run in runs:
        length = run.stop - run.start
        start, stop = max(offset, 0), min(offset + count, length)
        if start < stop:
            piece = Run(run.source, run.start + start, run.start + stop)
            last = found[-1] if found else None
            if last is not None and last.source == piece.source and last.stop == piece.start:
                found[-1] = Run(last.source, last.start, piece.stop)
            else:
                found.append(piece)
        offset -= length
    return tuple(found)


def _offset(tensor: torch.Tensor) -> int:
    return int(tensor.storage_offset())


def _is_contiguous(tensor: torch.Tensor) -> bool:
    with as_engine():
        return tensor.is_contiguous()


def _is_whole(tensor: StandIn) -> bool:
    return _is_contiguous(tensor) and tensor.numel() == sum(run.stop - run.start for run in tensor.runs)


def _row_values(shape: Sequence[int]) -> int:
    return max(1, math.prod(shape[1:]))


def _is_rows(run: Run, shape: Sequence[int]) -> bool:
    row = _row_values(shape)
    return run.start % row == 0 and run.stop % row == 0


def _pieces(runs: Sequence[Run], shapes: Mapping[str, Sequence[int]]) -> tuple[Piece, ...]:
    for run in runs:
        if not _is_rows(run, shapes[run.source]):
            raise NotRecorded("a join of parts of rows")
    rows = {run.source: _row_values(shapes[run.source]) for run in runs}
    return tuple(
        Piece(source=run.source, start=run.start // rows[run.source], stop=run.stop // rows[run.source]) for run in runs
    )
