"""What an emulated device did, and what of it cost time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from roost.facts.machine import Lane

Direction = Literal["h2d", "d2h", "d2d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRecord:
    """One finished copy. Times are of ``time.perf_counter``."""

    lane: Lane
    direction: Direction
    copied_bytes: int
    enqueued_s: float
    start_s: float
    end_s: float


@dataclass(slots=True)
class Activity:
    """Copies, stalls of the compute lane, and counts of what a steady state must not do."""

    copies: list[CopyRecord] = field(default_factory=list)
    stalls: list[tuple[float, float]] = field(default_factory=list)
    enqueued_bytes: Counter[Direction] = field(default_factory=Counter)
    enqueued_copies: Counter[Direction] = field(default_factory=Counter)
    allocations: int = 0
    host_waits: int = 0
    unpinned_copies: int = 0  # between the device and host memory that is not registered

    def copied_bytes(self, direction: Direction) -> int:
        """Bytes enqueued in that direction, finished or not."""
        return self.enqueued_bytes[direction]

    @property
    def copy_s(self) -> float:
        """Seconds in which a copy ran."""
        return _length(_union([(record.start_s, record.end_s) for record in self.copies]))

    @property
    def stall_s(self) -> float:
        """Seconds in which the compute lane waited for the copy lane."""
        return _length(_union(self.stalls))

    @property
    def overlap_s(self) -> float:
        """Seconds in which a copy ran and the compute lane did not wait for it."""
        # Copies outside of stalls are what the union has more than the stalls.
        copies = [(record.start_s, record.end_s) for record in self.copies]
        return _length(_union([*copies, *self.stalls])) - self.stall_s


def _union(intervals: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _length(intervals: list[tuple[float, float]]) -> float:
    return sum(end - start for start, end in intervals)
