"""The facts of timed trials: what is tried, what one trial found, and what a whole bench says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from roost.facts import DeviceKind, Machine, Workload
from roost.plan import PlanDocument
from roost.plan.prediction import Predicted

Status = Literal["ok", "oom", "crashed", "hung", "wrong", "skipped", "eliminated"]

# The peer that is diffusers without any offload: its digest is what every other output must equal.
PLAIN = "plain diffusers"


def _no_params() -> Mapping[str, object]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to run the model. ``name`` is unique and stable: the journal's key, like ``layerwise k=20 strided p1``.

    A candidate of Roost has a ``plan``. A peer has the name of its mode in ``peer`` (``PLAIN`` or one of
    ``peers.py``), and no prediction.
    """

    name: str
    strategy: str
    params: Mapping[str, object] = field(default_factory=_no_params)
    plan: PlanDocument | None = None
    peer: str | None = None
    predicted: Predicted | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """What one component took in one stage of a trial; ``seconds`` include its copies."""

    name: str
    component: str
    seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What one trial, or all trials of one candidate, found. None is unknown, also what a failed trial never reached.

    ``step_seconds`` are the steady steps, those after warm-up. ``total_s`` is a whole generation of the workload:
    the measured stages, with the steps that were left out at the median of the steady ones. ``peak_bytes`` are the
    allocator's in the first generation: what the plan needs; ``later_peak_bytes`` those of a measured one, in which
    components stayed where there was room. ``reserved_bytes`` are the allocator's too, ``process_bytes`` what NVML
    sees. ``demotions`` are what memory did not allow, by component; a trial with any is ``oom``.
    """

    status: Status
    reason: str | None = None
    load_s: float | None = None
    step_seconds: tuple[float, ...] = ()
    total_s: float | None = None
    peak_bytes: int | None = None
    later_peak_bytes: int | None = None
    reserved_bytes: int | None = None
    process_bytes: int | None = None
    host_peak_bytes: int | None = None
    pinned_bytes: int | None = None
    bytes_copied: int | None = None
    stall_s: float | None = None
    digest: str | None = None
    stages: tuple[StageTime, ...] = ()
    demotions: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What the race sees of one trial. ``step_s`` is empty unless ``status`` is ok.

    Its samples are seconds a step of a whole generation: a steady step and its share of all that is not a step, so
    that a strategy which moves weights between stages pays for it.
    """

    status: Status
    step_s: tuple[float, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One candidate at the end. ``rounds_s`` is the median step of each round; ``held_up`` counts those that something
    disturbed, which are in no other figure. ``ratio`` is its time over the winner's, with one standard error.
    """

    name: str
    status: Status
    reason: str | None
    rounds_s: tuple[float, ...] = ()
    held_up: int = 0
    mean_s: float | None = None
    sd_s: float | None = None
    ratio: float | None = None
    ratio_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One candidate with all that its ``rounds`` trials found together."""

    candidate: Candidate
    result: TrialResult
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """Of a bench without time for one trial of everybody: ``raced`` candidates ran, the best predicted first."""

    max_seconds: float
    raced: int
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResults:
    """A whole bench: a row for each candidate in the order of promise, and the name of the winner, if there is one.

    ``reference`` is the candidate whose digest the others were compared with. ``trial_steps`` were measured of the
    workload's steps. ``samples`` are each candidate's race measurements, a tuple for each round; ``standings`` are what
    the race made of them, in the order of the rows.
    """

    model: str
    workload: Workload
    machine: Machine
    device_kind: DeviceKind
    trial_steps: int
    rows: tuple[Row, ...]
    winner: str | None
    reference: str | None
    samples: Mapping[str, tuple[tuple[float, ...], ...]]
    standings: tuple[Standing, ...]
    versions: Mapping[str, str]
    shortage: Shortage | None = None
    notes: tuple[str, ...] = ()  # what the reader must know: emulated figures, time that ran out, a slow link
