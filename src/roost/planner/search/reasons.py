"""Why the search placed a component as it did, and why not otherwise: sentences from the figures."""

from __future__ import annotations

from collections.abc import Mapping

from roost.facts.resident_policy import blocks_of_stacks
from roost.facts.stage import Phase
from roost.option_spelling import option
from roost.plan.figures import (
    Arithmetic,
    MoreGenerations,
    MoreMemory,
    OtherPlan,
    PlanComparison,
    Predicted,
    PredictedStage,
)
from roost.planner.placements import Placement
from roost.planner.search.columns import Objective
from roost.planner.search.levels import NOISE
from roost.planner.search.option import Combination
from roost.units import GiB, format_bytes, format_seconds

_STAYS = "it fits beside every stage and then never moves."
# Of a plan by weights alone, where even a guess at activations leaves nothing that fits.
LEAST_WEIGHTS = "nobody knows what activations take, so as little as possible stays on the GPU."


def why_of(placement: Placement, predicted: Predicted, arithmetic: Arithmetic, objective: Objective) -> str:
    """The reason for one component's placement by a search for the least seconds or the least memory."""
    if placement.strategy in ("resident", "fsdp"):
        return why_resident(tiled=placement.tiling, rounded=placement.component.storage is not None)
    size = format_bytes(placement.component.load_bytes)
    if placement.streaming is None:
        return f"its {size} come in for its own stage and make room for the others after it." + _lossy(placement)
    if placement.streaming.hold:
        return f"its {len(placement.block_bytes)} blocks come in at first touch and stay for the stage." + _lossy(
            placement
        )
    stages = [stage for stage in predicted.stages if stage.component == placement.component.name]
    pace = _pace(stages, {(work.component, work.phase): work.wait_s for work in arithmetic.stages}, objective)
    return f"{_staying(placement)} stay and the others stream: {pace}" + _lossy(placement)


def _staying(placement: Placement) -> str:
    """``9 of 57 blocks``, and of which stack where one of two keeps more than its share."""
    assert placement.streaming is not None
    kept, units = blocks_of_stacks(placement.streaming.resident_policy), placement.component.units
    if len(kept) != 2:
        noun = "layers" if placement.component.leaf_level else "blocks"
        return f"{placement.streaming.resident_blocks} of {len(placement.block_bytes)} {noun}"
    return " and ".join(f"{most} of {unit.count} {unit.name}" for most, unit in zip(kept, units, strict=True))


def _pace(stages: list[PredictedStage], wait_s: Mapping[tuple[str, Phase | None], float], objective: Objective) -> str:
    stage = max(stages, key=lambda each: each.seconds, default=None)
    if stage is None:
        return "it is not used."
    waits = f"{format_seconds(wait_s[stage.component, stage.phase])} of {format_seconds(stage.seconds)}"
    if stage.binding in ("compute", "host"):
        return f"compute hides the copies (it waits {waits}), so more residents would gain nothing."
    limiter = "the disk" if stage.binding == "disk" else "the link"
    held = "VRAM holds no more blocks worth having" if objective == "seconds" else "the least memory was asked for"
    return f"{limiter} sets the pace (compute waits {waits}), and {held}."


def why_resident(*, tiled: bool, rounded: bool, several: bool = False) -> str:
    """The reason for one component that stays, or the one reason of several."""
    stays = "they fit beside every stage and then never move." if several else _STAYS
    return stays + _losses(tiled=tiled, rounded=rounded, several=several)


def _lossy(placement: Placement) -> str:
    return _losses(tiled=placement.tiling, rounded=placement.component.storage is not None)


def _losses(*, tiled: bool, rounded: bool, several: bool = False) -> str:
    peak, take = ("their peaks", "they take") if several else ("its peak", "it takes")
    return (f" Tiling lowers {peak} and changes bits." if tiled else "") + (
        f" In 8 bits {take} less room." if rounded else ""
    )


def why_lost(other: Combination, chosen: Combination, budget_bytes: int) -> str:
    """Why another plan lost: it does not fit, it is slower, or it gains too little for what it adds."""
    if other.vram_bytes > budget_bytes:
        return f"needs {format_bytes(other.vram_bytes - budget_bytes)} more VRAM."
    difference_s = other.seconds - chosen.seconds
    share = difference_s / chosen.seconds if chosen.seconds else 0.0
    if difference_s <= 0:
        return f"gains {format_seconds(-difference_s)} ({-share:.1%}), under {NOISE - 1:.0%}, and is less simple."
    saved = chosen.vram_bytes - other.vram_bytes
    smaller = f"{format_bytes(saved)} less VRAM, but " if saved > 0 else ""
    return f"{smaller}{format_seconds(difference_s)} slower ({share:.1%})."


def notes_of(compared: PlanComparison, strategies: Mapping[str, str]) -> list[str]:
    """What the comparison says, a sentence each; nothing of what would save nothing. ``strategies`` are the plan's."""
    chosen_s = compared.model_offload.total_s * (1 - compared.model_offload.gain)
    notes = [_against_model_offload(compared.model_offload, chosen_s, compared.generations)]
    if compared.runner_up:
        notes.append(f"runner-up: {_beside(compared.runner_up)}.")
    resident = compared.all_resident
    if resident and resident.differs and (resident.gain < 0 or not resident.short_bytes):
        notes.append(f"all resident: {_resident(resident)}.")
    notes += [_more(each, chosen_s) for each in compared.more_memory if each.saves_s]
    if compared.more_generations:
        notes.append(more_generations_text(compared.more_generations, strategies))
    bound = [f"{each.what} in {each.stage}" if each.stage else each.what for each in compared.binds]
    return [*notes, f"binds: {', '.join(bound)}."] if bound else notes


def _against_model_offload(other: OtherPlan, chosen_s: float, generations: int) -> str:
    if other.short_bytes:
        return f"model offload would not fit: it needs {format_bytes(other.short_bytes)} more VRAM."
    if other.gain < NOISE - 1:
        return "under 2 % faster than model offload: don't bother."
    many = f" and {generations} generations" if generations > 1 else ""
    return (
        f"{other.gain:.0%} faster than model offload: {format_seconds(chosen_s)} instead of"
        f" {format_seconds(other.total_s)}, each with loading{many}."
    )


def more_generations_text(many: MoreGenerations, strategies: Mapping[str, str]) -> str:
    """What a plan for more generations would do otherwise than one with ``strategies``."""
    differs = ", ".join(
        f"{name} {strategy}{' with its weights elsewhere' if strategies.get(name) == strategy else ''}"
        for name, strategy in many.differs.items()
    )
    return (
        f"{option('generations', many.generations)} would choose otherwise ({differs}): loading takes"
        f" {format_seconds(many.load_s)} and each later generation {format_seconds(many.next_s)}."
    )


def _beside(other: OtherPlan) -> str:
    differs = ", ".join(f"{name} {strategy}" for name, strategy in other.differs.items())
    return f"{_difference(other)}, with {differs}" if differs else _difference(other)


def _difference(other: OtherPlan) -> str:
    """How much slower the other plan is: seconds, and the share of the chosen plan's."""
    chosen_s = other.total_s * (1 - other.gain)
    slower_s = other.total_s - chosen_s
    if slower_s < 0:
        return f"{format_seconds(-slower_s)} faster ({_share(-slower_s / chosen_s)}), but less simple"
    return f"{format_seconds(slower_s)} slower ({_share(slower_s / chosen_s)})" if chosen_s else "as fast"


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "under 0.1%"


def _resident(other: OtherPlan) -> str:
    if not other.short_bytes:
        return _difference(other)
    saved = f"{format_seconds(-other.total_s * other.gain)} ({_share(-other.gain / (1 - other.gain))})"
    return f"needs {format_bytes(other.short_bytes)} more VRAM and would save {saved}"


def _more(more: MoreMemory, chosen_s: float) -> str:
    amount = f"{more.bytes / GiB:g} GiB more {more.memory}" if more.bytes else f"more {more.memory}"
    where = f", in {more.stage}" if more.stage else ""
    return f"{amount} would save {format_seconds(more.saves_s)} ({_share(more.saves_s / chosen_s)}){where}."
