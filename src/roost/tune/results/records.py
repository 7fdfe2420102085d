"""The facts of a bench: what is tried, what the race sees of a trial, and what the whole of it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from roost.facts.machine import DeviceKind, Machine
from roost.facts.request import Workload
from roost.plan import PlanDocument
from roost.plan.figures import Predicted
from roost.plan.results import Shortage, Standing, Status, TrialResult

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
class Measurement:
    """What the race sees of one trial. ``step_s`` is empty unless ``status`` is ok.

    Its samples are seconds a step of a whole generation: a steady step and its share of all that is not a step, so
    that a strategy which moves weights between stages pays for it.
    """

    status: Status
    step_s: tuple[float, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One candidate with all that its ``rounds`` trials found together."""

    candidate: Candidate
    result: TrialResult
    rounds: int


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
