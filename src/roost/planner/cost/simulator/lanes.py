"""The two queues: first in, first out, each operation after what it waits for; and the memory, in host order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from roost.facts.machine import Lane


@dataclass(frozen=True, slots=True)
class LaneEvent:
    """One operation on a queue. ``bytes`` are what a copy moved, negative towards the host."""

    lane: Lane
    component: str
    block: int | None  # None for the trunk, or a whole component
    start_s: float
    end_s: float
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class MemoryEvent:
    """A change of what is allocated on the device. Order is the host's, which is the allocator's."""

    time_s: float
    component: str
    what: Literal["weights", "activations", "context"]
    change_bytes: int


@dataclass(slots=True)
class Lanes:
    """Where both queues and the host stand, in seconds; the events are kept while ``recording``."""

    recording: bool = False
    copy_s: float = 0.0
    compute_s: float = 0.0
    host_s: float = 0.0
    stall_s: float = 0.0
    h2d_bytes: int = 0
    d2h_bytes: int = 0
    busy_compute_s: float = 0.0
    busy_copy_s: float = 0.0
    allocated_bytes: int = 0
    peak_bytes: int = 0
    reserved_bytes: int = 0
    events: list[LaneEvent] = field(default_factory=list)
    memory: list[MemoryEvent] = field(default_factory=list)

    def copy(self, component: str, block: int | None, seconds: float, size: int, after_s: float) -> float:
        """Queues a copy that waits for ``after_s``; returns when it is done. A negative size goes to the host."""
        start = max(self.copy_s, self.host_s, after_s)
        self.copy_s = start + seconds
        self.busy_copy_s += seconds
        self.h2d_bytes += max(0, size)
        self.d2h_bytes += max(0, -size)
        if self.recording:
            self.events.append(LaneEvent("copy", component, block, start, self.copy_s, size))
        return self.copy_s

    def compute(self, component: str, block: int | None, seconds: float, after_s: float) -> float:
        """Queues compute that waits for ``after_s``; what it waits beyond its queue is stall."""
        earliest = max(self.compute_s, self.host_s)
        start = max(earliest, after_s)
        self.stall_s += start - earliest
        self.compute_s = start + seconds
        self.busy_compute_s += seconds
        if self.recording and seconds:
            self.events.append(LaneEvent("compute", component, block, start, self.compute_s))
        return self.compute_s

    def synchronise(self) -> None:
        """The host, and so everything queued later, waits for both queues."""
        waited = max(self.copy_s, self.compute_s)
        self.stall_s += max(0.0, waited - max(self.host_s, self.compute_s))
        self.host_s = max(self.host_s, waited)

    def allocate(self, component: str, what: Literal["weights", "activations", "context"], size: int) -> None:
        """Changes what is allocated; a negative size frees."""
        self.allocated_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.allocated_bytes)
        self.reserved_bytes = max(self.reserved_bytes, self.allocated_bytes)
        if self.recording and size:
            self.memory.append(MemoryEvent(max(self.host_s, self.compute_s), component, what, size))

    def reserve(self, unusable_bytes: int) -> None:
        """What the allocator takes from the device for what is allocated now: that, and what lies between."""
        self.reserved_bytes = max(self.reserved_bytes, self.allocated_bytes + unusable_bytes)

    def shift(self, seconds: float) -> None:
        """Moves all three clocks forward: so many equal passes went by."""
        self.copy_s += seconds
        self.compute_s += seconds
        self.host_s += seconds
