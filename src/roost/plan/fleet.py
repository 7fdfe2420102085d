"""The records of a plan for a fleet: its workers, what they serve together, and the layouts that were compared."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from roost.facts.limits import Name, Positive
from roost.facts.request import LayoutName, Role
from roost.plan.fields import ComponentName, Count, Seconds, Strict
from roost.plan.figures import AlternativeComponent, BytesInterval, SecondsInterval

PerSecond = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RateInterval(Strict):
    low: PerSecond
    mid: PerSecond
    high: PerSecond


class WorkerRecord(Strict):
    """One card's worker. ``device`` is the card's number on its host; ``peak_bytes`` are VRAM of the process.

    ``request_s`` are the seconds that a request keeps it busy. ``plan`` is the key of its own plan among the document's
    ``worker_plans``; None where the document itself is that.
    """

    name: Name
    host: Name
    gpu: Name
    device: Count
    role: Role
    components: dict[ComponentName, AlternativeComponent]
    peak_bytes: BytesInterval
    request_s: SecondsInterval
    plan: Name | None = None


class HostMemory(Strict):
    """What workers take of a host's memory: processes, and masters, of which each is counted once."""

    name: Name
    bytes: BytesInterval


class FleetRecord(Strict):
    """What the chosen layout serves. ``request_s`` is of one request in an idle fleet;
    ``host_bytes`` of the fullest host.

    From ``requests`` on it is what the simulation was asked, and what it found by the mid figures: ``rate`` is None
    where all requests arrive at once; the percentiles are of seconds from arrival to end.
    """

    requests_per_s: RateInterval
    request_s: SecondsInterval
    host_bytes: BytesInterval
    hosts: list[HostMemory]
    requests: Positive
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    failed: Count
    p50_s: Seconds
    p95_s: Seconds
    utilisation: dict[Name, Annotated[float, Field(ge=0, allow_inf_nan=False)]]


class LayoutRecord(Strict):
    """One layout that was compared: its figures (None where it can't be), and why it was chosen, or why not."""

    name: LayoutName
    workers: Count
    requests_per_s: RateInterval | None
    request_s: SecondsInterval | None
    p95_s: Seconds | None
    peak_bytes: BytesInterval | None
    host_bytes: BytesInterval | None
    why: str | None
    why_not: str | None
