"""The record of the trials that a plan won."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from roost.facts.limits import Bytes, Label, Name, Positive, Sha256
from roost.facts.machine import DeviceKind
from roost.plan.fields import Seconds, Strict
from roost.plan.results import Ratio, Status

Utc = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


class StepTimes(Strict):
    """Of ``n`` steady steps. ``sd`` is their standard deviation, null for a single one."""

    mean: Seconds
    sd: Seconds | None
    n: Positive


class Rival(Strict):
    """Another candidate of the same race; ``ratio`` is its time over the plan's, with one standard error."""

    name: Name
    status: Status
    reason: Label | None
    ratio: Ratio | None
    ratio_error: Ratio | None


class Measured(Strict):
    """What the plan took in ``rounds`` trials on that kind of device, and whom it raced.

    ``total_s`` is a whole generation: steps beyond the ``trial_steps`` that were run count as the median one.
    """

    source: Literal["trial"]
    device_kind: DeviceKind
    when: Utc
    rounds: Positive
    trial_steps: Positive
    step_s: StepTimes
    load_s: Seconds | None
    total_s: Seconds
    peak_bytes: Bytes | None
    reserved_bytes: Bytes | None
    host_peak_bytes: Bytes | None
    digest: Sha256 | None
    candidate: Name
    rivals: list[Rival]
