"""What ``roost explain`` tells of a plan: facts, each worked out in ``explain``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from roost.facts.decider import Blocked, Fired
from roost.facts.request import Strategy
from roost.facts.stage import Phase
from roost.plan.figures import Limiter, Rate, StageWork


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSum:
    """What one stage has on the device. The parts add up to ``peak_bytes``; ``left_bytes`` may be negative.

    Context and activations are None in a plan without a prediction; its sums are weights alone. So is ``phase``, of
    stages that may be of several components.
    """

    name: str
    phase: Phase | None = None
    weights: Mapping[str, int]  # by component; others that linger make up the rest of weights_bytes
    weights_bytes: int
    context_bytes: int | None
    activation_bytes: int | None
    peak_bytes: int
    left_bytes: int
    seconds: float | None = None
    binding: Limiter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IfResident:
    """What would be on the device if this component stayed there and all others were placed as they are.

    ``short_bytes`` is what the tightest stage then lacks of the budget; 0 when it would fit.
    """

    stage: str
    peak_bytes: int
    short_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentAccount:
    """One component's decision. ``device_bytes`` are its weights on the device while it is used.

    Of a ``held`` one every block comes in at its first use and stays until the stage ends; none counts as resident.
    """

    name: str
    strategy: Strategy
    decided_by: str
    why: str
    load_bytes: int
    device_bytes: int
    blocks: int
    resident_blocks: int
    held: bool
    slots: int | None
    leaf_level: bool  # whether its blocks are layers below the model's blocks
    prefetch: int | None
    tiling: bool
    work: tuple[StageWork, ...]
    binding: Limiter | None
    if_resident: IfResident | None  # None for what is resident


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One plan of the comparison.

    ``on_front`` when it fits and no other listed one is at least as good in seconds, VRAM and host memory.
    """

    names: tuple[str, ...]
    seconds: float
    delta_s: float
    peak_bytes: int
    host_bytes: int
    fits: bool
    on_front: bool
    strategies: Mapping[str, str]
    resident_blocks: Mapping[str, int]  # of what streams
    tiled: tuple[str, ...]
    why_not: str | None  # None for the chosen plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything ``roost explain`` shows of a plan. ``step_…_s`` is how long one step keeps each queue busy."""

    stages: tuple[StageSum, ...]
    components: tuple[ComponentAccount, ...]
    step_compute_s: float | None
    step_copy_s: float | None
    fired: tuple[Fired, ...]
    blocked: tuple[Blocked, ...]
    choices: tuple[str, ...]
    rates: Mapping[str, Rate]
    plans: tuple[PlanRow, ...]
