"""What timed trials found: one record of each thing, from where it is measured to where a file of it is read."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from roost.facts.limits import Bytes
from roost.facts.stage import Phase
from roost.plan import earlier
from roost.plan.fields import Count, Seconds

Status = Literal["ok", "oom", "crashed", "hung", "wrong", "skipped", "eliminated"]
Ratio = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """What one component took in one stage of a trial; ``seconds`` include its copies."""

    name: str
    component: str
    phase: Phase | None = None
    seconds: Seconds
    peak_bytes: Bytes | None = None


RecordedStage = Annotated[StageTime, BeforeValidator(earlier.stage_facts)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What one trial, or all trials of one candidate, found. None is unknown, also what a failed trial never reached.

    ``step_seconds`` are the steady steps, from the second on. ``generation_s`` is the generation that was timed,
    ``total_s`` a whole one of the workload: with the steps that were left out at the median of the steady ones.
    ``peak_bytes``, also of stages, are the allocator's in the first generation: what the plan needs;
    ``later_peak_bytes`` those of a measured one, in which components stayed where there was room; an emulated device
    doesn't know its activations then. ``reserved_bytes`` are the allocator's too, ``process_bytes`` what NVML sees.
    ``demotions`` are what memory did not allow, by component; a trial with any is ``oom``.
    """

    status: Status
    reason: str | None = None
    load_s: Seconds | None = None
    step_seconds: tuple[Seconds, ...] = ()
    generation_s: Seconds | None = None
    total_s: Seconds | None = None
    peak_bytes: Bytes | None = None
    later_peak_bytes: Bytes | None = None
    reserved_bytes: Bytes | None = None
    process_bytes: Bytes | None = None
    host_peak_bytes: Bytes | None = None
    pinned_bytes: Bytes | None = None
    bytes_copied: Bytes | None = None
    stall_s: Seconds | None = None
    digest: str | None = None
    stages: tuple[RecordedStage, ...] = ()
    demotions: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Steady steps; None where a candidate never got to them."""

    mean: Seconds | None = None
    sd: Seconds | None = None
    n: Count = 0
    median: Seconds | None = None
    min: Seconds | None = None
    max: Seconds | None = None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Steps:
        """What these samples say."""
        if not seconds:
            return cls()
        return cls(
            mean=statistics.fmean(seconds),
            sd=statistics.stdev(seconds) if len(seconds) > 1 else None,
            n=len(seconds),
            median=statistics.median(seconds),
            min=min(seconds),
            max=max(seconds),
        )


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Middle(_Lenient):
    """The middle of a predicted interval."""

    mid: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PredictedFigures(_Lenient):
    """What is read of a candidate's ``Predicted``; ``first_s`` is one generation without loading."""

    peak_bytes: Middle
    step_s: Middle
    first_s: Middle | None = None
    stages: tuple[RecordedStage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow(TrialResult):
    """One candidate of a bench's results, as a file has it."""

    name: str | None = None
    strategy: str
    params: Mapping[str, object] = field(default_factory=dict)
    rounds: Count = 0
    step_s: Steps = field(default_factory=Steps)
    predicted: PredictedFigures | None = None

    @property
    def title(self) -> str:
        """The candidate's name, or its strategy with the parameters."""
        return self.name or " ".join([self.strategy, *(f"{key}={value}" for key, value in self.params.items())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One candidate at the end. ``rounds_s`` is the median step of each round; ``held_up`` counts those that something
    disturbed, which are in no other figure. ``ratio`` is its time over the winner's, with one standard error.
    """

    name: str
    status: Status = "ok"
    reason: str | None = None
    rounds_s: tuple[Seconds, ...] = ()
    held_up: Count = 0
    mean_s: Seconds | None = None
    sd_s: Seconds | None = None
    ratio: Ratio | None = None
    ratio_error: Ratio | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """Of a bench without time for one trial of everybody: ``raced`` candidates ran, the best predicted first."""

    max_seconds: Seconds
    raced: Count
    left_out: tuple[str, ...]
