"""What a simulation found: the times of each stage, and the events of the queues."""

from __future__ import annotations

from dataclasses import dataclass, field

from roost.facts.stage import StageKey
from roost.planner.cost.simulator.lanes import LaneEvent, MemoryEvent


@dataclass(frozen=True, slots=True)
class Pace:
    """One use once uses repeat: its seconds, how long each queue was busy with it, and what came over the link."""

    seconds: float = 0.0
    compute_s: float = 0.0
    copy_s: float = 0.0
    h2d_bytes: int = 0


@dataclass(slots=True)
class StageTimes:
    """What one stage took in one generation. ``compute_s`` and ``copy_s`` are how long each queue was busy."""

    component: str
    seconds: float = 0.0
    compute_s: float = 0.0
    copy_s: float = 0.0
    stall_s: float = 0.0
    h2d_bytes: int = 0
    d2h_bytes: int = 0
    peak_bytes: int = 0
    weights_bytes: int = 0
    uses: int = 0
    steady: Pace = field(default_factory=Pace)

    def add(self, other: StageTimes, times: int) -> None:
        self.seconds += times * other.seconds
        self.compute_s += times * other.compute_s
        self.copy_s += times * other.copy_s
        self.stall_s += times * other.stall_s
        self.h2d_bytes += times * other.h2d_bytes
        self.d2h_bytes += times * other.d2h_bytes
        self.uses += times * other.uses
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        self.weights_bytes = max(self.weights_bytes, other.weights_bytes)
        self.steady = other.steady


@dataclass(frozen=True, slots=True)
class UseSpan:
    """When uses ran, by the compute queue: one that was simulated, or ``passes`` equal ones that were not."""

    stages: tuple[StageKey, ...]
    component: str
    start_s: float
    end_s: float
    passes: int = 1
    skipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Simulated generations: seconds of each, the stages of each, and the events when they were recorded.

    ``reserved_bytes`` are the peak with what the allocator can't use between its blocks. Stages' seconds add up to the
    generation's. With passes skipped as equal, events show the simulated ones only, and ``spans`` say where the others
    are; they were recorded too.
    """

    generation_s: tuple[float, ...]
    stages: tuple[dict[StageKey, StageTimes], ...]
    peak_bytes: int
    reserved_bytes: int
    events: tuple[LaneEvent, ...]
    memory: tuple[MemoryEvent, ...]
    simulated_uses: int
    spans: tuple[UseSpan, ...] = ()

    @property
    def seconds(self) -> float:
        return sum(self.generation_s)
