"""What other plans would take, and what more memory would change: the plan document's comparison."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from roost.plan.fields import Bytes, Name, Seconds, Strict

Bound = Literal["link", "compute", "host", "disk", "VRAM", "host memory"]


class MoreMemory(Strict):
    """What more of one memory would save. ``bytes`` None is as much as is useful; ``stage`` is where it would."""

    memory: Literal["VRAM", "host memory"]
    bytes: Bytes | None
    saves_s: Seconds
    stage: Name | None


class OtherPlan(Strict):
    """Another plan of the same question. ``gain`` is the share of its seconds that the chosen plan saves.

    Below 0 the other one is faster. ``short_bytes`` is the VRAM that it lacks; host memory is not looked at.
    """

    total_s: Seconds
    gain: Annotated[float, Field(allow_inf_nan=False)]
    short_bytes: Bytes
    differs: dict[Name, Name]  # component -> its strategy there


class Binding(Strict):
    """What sets the seconds: an engine or a queue, or a memory that would save some if there were more of it."""

    what: Bound
    stage: Name | None


class Compared(Strict):
    """The chosen plan beside others. Seconds are totals of all generations; each other plan is simulated like it."""

    more_memory: list[MoreMemory]
    model_offload: OtherPlan
    runner_up: OtherPlan | None
    all_resident: OtherPlan | None
    binds: list[Binding]
