"""Why the search placed a component as it did, and why not otherwise: sentences from the figures."""

from __future__ import annotations

from roost.planner.estimate import Prediction, StagePrediction
from roost.planner.placements import Placement
from roost.planner.solver import NOISE, Combination, Limits
from roost.units import format_bytes, format_seconds


def why_of(placement: Placement, prediction: Prediction) -> str:
    """The reason for one component's placement."""
    stages = [stage for stage in prediction.stages if stage.component == placement.component.name]
    if placement.strategy in ("resident", "fsdp"):
        return "it fits beside every stage and then never moves." + _tiled(placement)
    size = format_bytes(placement.component.load_bytes)
    if placement.streaming is None:
        return f"its {size} come in for its own stage and make room for the others after it." + _tiled(placement)
    kept, count = placement.streaming.resident_blocks, len(placement.block_bytes)
    if placement.streaming.hold:
        return f"its {count} blocks come in at first touch and stay for the stage." + _tiled(placement)
    return f"{kept} of {count} blocks stay and the others stream: {_pace(stages)}" + _tiled(placement)


def _pace(stages: list[StagePrediction]) -> str:
    stage = max(stages, key=lambda each: each.seconds, default=None)
    if stage is None:
        return "it is not used."
    waits = f"{format_seconds(stage.stall_s)} of {format_seconds(stage.seconds)}"
    if stage.binding in ("compute", "host"):
        return f"compute hides the copies (it waits {waits}), so more residents would gain nothing."
    limiter = "the disk" if stage.binding == "disk" else "the link"
    return f"{limiter} sets the pace (compute waits {waits}), and VRAM holds no more blocks worth having."


def _tiled(placement: Placement) -> str:
    return " Tiling lowers its peak and changes bits." if placement.tiling else ""


def why_not(other: Combination, chosen: Combination, budget_bytes: int) -> str:
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


def notes_of(chosen: Combination, more_vram_saves_s: float | None, offload: Combination, limits: Limits) -> list[str]:
    """What more memory would buy, and what the plan gains over moving whole components."""
    notes = [_against(chosen, offload, limits)]
    if more_vram_saves_s is not None:
        notes.append(f"2 GiB more VRAM would save {format_seconds(more_vram_saves_s)}.")
    return notes


def _against(chosen: Combination, offload: Combination, limits: Limits) -> str:
    if offload.vram_bytes > limits.vram_bytes:
        missing = format_bytes(offload.vram_bytes - limits.vram_bytes)
        return f"moving whole components (model offload) would not fit: it needs {missing} more VRAM."
    gain = 1 - chosen.seconds / offload.seconds if offload.seconds else 0.0
    if gain < NOISE - 1:
        return "under 2 % faster than moving whole components (model offload): don't bother."
    return f"{gain:.0%} faster than moving whole components (model offload)."
