"""One generation on the copy lane and the compute lane. Seconds count from its start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from roost.facts.machine import Lane
from roost.facts.stage import StageKey, stage_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One operation on a lane. ``part`` is a block, by name or number, or ``trunk``.

    ``bytes`` are what a copy moved, negative towards the host; 0 for compute.
    """

    lane: Lane
    component: str
    part: str
    start_s: float
    end_s: float
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One call into a component, or ``count`` like ones, perhaps of several stages, without slices (``skipped``)."""

    stages: tuple[StageKey, ...]
    component: str
    start_s: float
    end_s: float
    count: int = 1
    skipped: bool = False

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLevel:
    """Device bytes from ``time_s`` until the next level, by what they are for: a component, or something else."""

    time_s: float
    bytes: Mapping[str, int]

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineRecord:
    """A timeline with what it is of. All lists are in the order of their times.

    ``figures`` are what else is worth telling, by name; ``stage_texts`` what stages are called, where not as in plans.
    """

    kind: Literal["predicted", "measured"]
    model: str
    workload: str
    device: str
    budget_bytes: int
    slices: tuple[Slice, ...]
    passes: tuple[Pass, ...]
    memory: tuple[MemoryLevel, ...]
    figures: Mapping[str, str] = field(default_factory=dict)
    stage_texts: Mapping[StageKey, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        ends = [*(each.end_s for each in self.passes), *(each.end_s for each in self.slices)]
        return max(ends, default=0.0)

    def text_of(self, stages: Iterable[StageKey]) -> str:
        """What people call the stages."""
        return " and ".join(self.stage_texts.get(each) or stage_text(each.phase, each.component) for each in stages)

    @property
    def peak_bytes(self) -> int:
        return max((each.total_bytes for each in self.memory), default=0)
