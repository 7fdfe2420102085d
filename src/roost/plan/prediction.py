"""The records of what was traced, predicted and not chosen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from roost.facts import Strategy
from roost.plan.fields import Bytes, Count, Flops, Masters, Name, Positive, Seconds, Strict

Limiter = Literal["link", "compute", "host", "disk"]


class UseRecord(Strict):
    """One distinct call of a component; figures are per call. Activations are without weights and inputs."""

    component: Name
    method: Name
    calls: Count
    flops: Flops
    flops_by_class: dict[Name, Flops]
    activation_bytes: Bytes
    output_bytes: Bytes


class TraceRecord(Strict):
    """What one generation does, and how long finding that out took. A multiply-add is 2 FLOPs."""

    source: Name
    seconds: Seconds
    uses: list[UseRecord]


class SecondsInterval(Strict):
    low: Seconds
    mid: Seconds
    high: Seconds


class BytesInterval(Strict):
    low: Bytes
    mid: Bytes
    high: Bytes


class PredictedStage(Strict):
    """One stage of the first generation, and what sets its pace."""

    name: Name
    component: Name
    seconds: Seconds
    peak_bytes: Bytes
    binding: Limiter


class Predicted(Strict):
    """The cost model's figures. ``total_s`` is load + first + (n − 1) · next for n generations."""

    peak_bytes: BytesInterval
    load_s: SecondsInterval
    first_s: SecondsInterval
    next_s: SecondsInterval
    step_s: SecondsInterval
    total_s: SecondsInterval
    first_total_s: SecondsInterval
    limiter: Limiter
    host_bytes: Bytes
    pinned_bytes: Bytes
    stages: list[PredictedStage]
    source: Name
    notes: list[str]


class AlternativeComponent(Strict):
    """How an alternative places one component."""

    strategy: Strategy
    resident_blocks: Count | None
    resident_policy: Literal["strided", "leading"] | None
    prefetch: Positive | None
    master: Masters | None
    tiling: bool


class Alternative(Strict):
    """A plan that was not chosen: its name, what it would take, and why not.

    ``also`` are further names of the same placements: the runner-up may be the rule plan.
    """

    name: Name
    components: dict[Name, AlternativeComponent]
    predicted: Predicted
    why_not: str
    also: list[Name] = Field(default_factory=list)
