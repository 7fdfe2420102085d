"""Records one use of a component: work by class of operation, bytes alive, and the same for each of its blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from roost.pipelines.internals.of_torch import storage_key
from roost.probes.dry_run.fake_ops import tensors_in
from roost.probes.dry_run.liveness import CachingAllocator, Liveness, storage_keys
from roost.probes.dry_run.op_classes import attention_kind, moved_bytes, op_kind
from roost.trace import OP_CLASSES, ActivationBytes, AttentionWork, BlockTrace, OpClass, OpClassTotals, Totals

_NOTHING = -(1 << 62)  # the peak of a part that was not there


class Work:
    """A running sum of FLOPs, bytes and kernels by class, of FLOPs by dtype, and of attention's FLOPs by its kind."""

    def __init__(self) -> None:
        self.by_class: dict[OpClass, list[int]] = {name: [0, 0, 0] for name in OP_CLASSES}
        self.flops_by_dtype: dict[torch.dtype, int] = {}
        self.attention: dict[tuple[bool, int, torch.dtype], int] = {}  # by mask, width of a head and dtype

    def add(self, op_class: OpClass, flops: int, moved: int, dtype: torch.dtype) -> None:
        entry = self.by_class[op_class]
        entry[0] += flops
        entry[1] += moved
        entry[2] += 1
        if flops:
            self.flops_by_dtype[dtype] = self.flops_by_dtype.get(dtype, 0) + flops

    def attend(self, kind: tuple[bool, int, torch.dtype], flops: int) -> None:
        self.attention[kind] = self.attention.get(kind, 0) + flops

    def include(self, other: Work) -> None:
        for name, entry in other.by_class.items():
            self.by_class[name] = [mine + its for mine, its in zip(self.by_class[name], entry, strict=True)]
        for dtype, flops in other.flops_by_dtype.items():
            self.flops_by_dtype[dtype] = self.flops_by_dtype.get(dtype, 0) + flops
        for kind, flops in other.attention.items():
            self.attend(kind, flops)

    def totals(self) -> Totals:
        return {
            name: OpClassTotals(flops=flops, bytes=moved, kernels=kernels)
            for name, (flops, moved, kernels) in self.by_class.items()
        }

    def attention_works(self) -> tuple[AttentionWork, ...]:
        return tuple(
            AttentionWork(masked=masked, head_width=width, dtype=_dtype_name(dtype), flops=flops)
            for (masked, width, dtype), flops in self.attention.items()
        )

    @property
    def main_dtype(self) -> str | None:
        """The dtype of most FLOPs."""
        if not self.flops_by_dtype:
            return None
        return _dtype_name(max(self.flops_by_dtype, key=self.flops_by_dtype.__getitem__))


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@dataclass(slots=True)
class Parts:
    """Peaks of live bytes before the first block, from there to the last block's end, and after it."""

    before: int = _NOTHING
    inside: int = _NOTHING
    after: int = _NOTHING
    seen_block: bool = False
    open_blocks: int = 0

    def note(self, live_bytes: int) -> None:
        if not self.seen_block:
            self.before = max(self.before, live_bytes)
        elif self.open_blocks:
            self.inside = max(self.inside, live_bytes)
        else:
            self.after = max(self.after, live_bytes)

    def enter_block(self, live_bytes: int) -> None:
        self.inside = max(self.inside, self.after, live_bytes)
        self.after = _NOTHING
        self.seen_block = True
        self.open_blocks += 1

    def leave_block(self, live_bytes: int) -> None:
        self.open_blocks -= 1
        self.note(live_bytes)

    def include(self, other: Parts, base_bytes: int) -> None:
        """What a stretch of the same use saw whose peaks count from ``base_bytes``."""
        if not other.seen_block:
            self.note(base_bytes + other.before)
            return
        self.note(base_bytes + other.before)
        self.enter_block(base_bytes + max(other.inside, other.before))
        self.leave_block(base_bytes + other.after)

    @property
    def peak(self) -> int:
        return max(self.before, self.inside, self.after)


@dataclass(slots=True)
class BlockSum:
    """What the calls of one block came to; the peak is of live bytes in the whole use."""

    calls: int = 0
    work: Work = field(default_factory=Work)
    peak: int = _NOTHING


@dataclass(slots=True)
class Frame:
    """One stretch of a use: the whole, or a submodule's call that may be replayed."""

    start_bytes: int
    births: int  # counted when the frame began
    own_keys: set[int]  # storages from before that the stretch was handed
    work: Work = field(default_factory=Work)
    parts: Parts = field(default_factory=Parts)
    blocks: dict[str, BlockSum] = field(default_factory=dict)
    read_foreign: bool = False  # it used a tensor that is no weight, not handed in and not made inside


class Recorder:
    """Observes the operations of one use; ``weights`` and ``inputs`` are never counted.

    ``allocator`` is the one of the use and those before it. What happens ``between`` two blocks is counted with the
    first of them, where that is asked for.
    """

    def __init__(
        self,
        weights: Iterable[torch.Tensor],
        inputs: Iterable[torch.Tensor],
        allocator: CachingAllocator | None = None,
        *,
        between: bool = False,
    ) -> None:
        self.liveness = Liveness(self._grew, allocator or CachingAllocator())
        weights = list(weights)
        for tensor in (*weights, *inputs):
            self.liveness.know(tensor)
        self._weight_keys = storage_keys(weights)
        self.frames = [Frame(start_bytes=0, births=0, own_keys=set())]
        self.frames[0].parts.note(0)
        self._open: list[BlockSum] = []
        self._between = between
        self._latest: BlockSum | None = None  # the block before, where what comes after it is its

    def record(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        kind = op_kind(func)
        moved, dtype = 0, None
        for tensor in (*tensors_in(args), *tensors_in(kwargs.values())):
            self._used(tensor)
            moved += moved_bytes(tensor) if kind else 0
            dtype = dtype or tensor.dtype
        for tensor in tensors_in((out,)):
            self.liveness.note(tensor)
            moved += moved_bytes(tensor) if kind else 0
            dtype = dtype or tensor.dtype
        if kind and dtype:
            flops = kind.flops(args, kwargs, out) if kind.flops else 0
            self.frames[-1].work.add(kind.op_class, flops, moved, dtype)
            if kind.op_class == "attention":
                self.frames[-1].work.attend((*attention_kind(func, args, kwargs), dtype), flops)
            block = self._open[-1] if self._open else self._latest
            if block is not None:
                block.work.add(kind.op_class, flops, moved, dtype)

    def _used(self, tensor: torch.Tensor) -> None:
        self.liveness.know(tensor)
        if len(self.frames) > 1:
            key, birth = storage_key(tensor.untyped_storage()), self.liveness.birth(tensor)
            for frame in self.frames[1:]:
                if birth <= frame.births and key not in frame.own_keys and key not in self._weight_keys:
                    frame.read_foreign = True

    def _grew(self, live_bytes: int) -> None:
        self.frames[-1].parts.note(live_bytes - self.frames[-1].start_bytes)
        if self._open:
            self._open[-1].peak = max(self._open[-1].peak, live_bytes)

    @contextmanager
    def block(self, name: str) -> Iterator[None]:
        """A block's call, which may happen inside a replayable frame."""
        frame = self.frames[-1]
        entry = BlockSum(calls=1, peak=self.liveness.live_bytes)
        frame.parts.enter_block(self.liveness.live_bytes - frame.start_bytes)
        self._open.append(entry)
        try:
            yield
        finally:
            self._open.pop()
            frame.parts.leave_block(self.liveness.live_bytes - frame.start_bytes)
            self._include_block(name, entry)

    def _include_block(self, name: str, entry: BlockSum) -> None:
        """Sums up under ``name``; peaks count from the frame's start until it ends."""
        frame = self.frames[-1]
        total = frame.blocks.setdefault(name, BlockSum())
        total.calls += entry.calls
        total.work.include(entry.work)
        total.peak = max(total.peak, entry.peak - frame.start_bytes)
        if self._open:  # a unit inside a unit
            self._open[-1].work.include(entry.work)
        elif self._between:
            self._latest = total

    @contextmanager
    def frame(self, handed: Iterator[torch.Tensor]) -> Iterator[Frame]:
        """A stretch that may be replayed; its sums join the surrounding one at the end."""
        own_keys = storage_keys(handed)  # ``handed`` is used up: holding its tensors would keep them alive
        frame = Frame(self.liveness.live_bytes, self.liveness.births, own_keys)
        frame.parts.note(0)
        self.frames.append(frame)
        outer, self._open = self._open, []
        latest, self._latest = self._latest, None
        try:
            yield frame
        finally:
            self._open, self._latest = outer, latest
            self.frames.pop()
            self.include(frame, frame.start_bytes)

    def include(self, frame: Frame, start_bytes: int) -> None:
        """Adds a frame's sums as if it had run with ``start_bytes`` alive at its start."""
        outer = self.frames[-1]
        outer.work.include(frame.work)
        outer.parts.include(frame.parts, start_bytes - outer.start_bytes)
        for name, entry in frame.blocks.items():
            total = outer.blocks.setdefault(name, BlockSum())
            total.calls += entry.calls
            total.work.include(entry.work)
            total.peak = max(total.peak, entry.peak + start_bytes - outer.start_bytes)
        for block in self._open:
            block.peak = max(block.peak, start_bytes + frame.parts.peak)
        if self._open:
            self._open[-1].work.include(frame.work)

    def activation_bytes(self) -> ActivationBytes:
        parts = self.frames[0].parts
        return ActivationBytes(
            before_blocks=max(0, parts.before), in_blocks=max(0, parts.inside), after_blocks=max(0, parts.after)
        )

    def block_traces(self) -> tuple[BlockTrace, ...]:
        return tuple(
            BlockTrace(name=name, calls=each.calls, totals=each.work.totals(), activation_bytes=each.peak)
            for name, each in self.frames[0].blocks.items()
        )
