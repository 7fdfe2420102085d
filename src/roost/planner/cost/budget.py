"""What is on the device in each stage, by weights alone, and whether it fits the budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from roost.facts.machine import Machine
from roost.facts.stage import PHASES, Phase, stage_text
from roost.plan.budget import StageWeights
from roost.plan.schema import Certainty
from roost.planner.cost.movement import host_bytes_of
from roost.planner.placements import Placement
from roost.planner.rules.names import base_name, kind_of
from roost.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a plan fits, and by how much not. ``host_deficit_bytes`` is what masters need beyond host memory.

    ``certainty`` is None for what doesn't fit. ``finding`` is the text without what would fit, where it names that;
    ``lacks`` says in short what a search lacks.
    """

    fits: bool
    text: str
    certainty: Certainty | None = None
    finding: str | None = None
    lacks: str | None = None
    deficit_bytes: int
    host_bytes: int
    host_deficit_bytes: int
    activations_known: bool = False
    would_fit: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()  # of host memory


def pool_bytes(machine: Machine) -> int | None:
    """What device and host may take together where they share one memory; None where each has its own."""
    return max(0, machine.host.available_bytes - machine.headroom_bytes) if machine.gpu.unified else None


def pool_warnings(machine: Machine) -> tuple[str, ...]:
    """What a plan says of a memory that both sides share."""
    pool = pool_bytes(machine)
    if pool is None:
        return ()
    return (
        f"{machine.gpu.name} shares its memory with the host: one pool, of which a plan may use {format_bytes(pool)}."
        " Offloading frees nothing there: a host's copy lies in the same memory, unless it stays in the model's files.",
    )


def stages(placements: Iterable[Placement]) -> tuple[StageWeights, ...]:
    """Maximal runs of uses of the same components, in the order of use, generic over families.

    Encoders and VAEs are used one after another; DiTs that share a base name are experts used one after another, others
    are used together; components of no group (a ControlNet) are used beside the DiTs.
    """
    placements = tuple(placements)
    by_kind = {kind: [each for each in placements if kind_of(each.component) == kind] for kind in PHASES}
    found: list[StageWeights] = []
    for kind, phase in PHASES.items():
        if kind == "dit":
            found.extend(_denoise_stages(by_kind["dit"], by_kind["other"], placements))
        elif kind != "other":
            found.extend(_stage(phase, [each], placements) for each in by_kind[kind])
    return tuple(found)


def _denoise_stages(
    dits: list[Placement], beside: list[Placement], placements: tuple[Placement, ...]
) -> list[StageWeights]:
    if len(dits) > 1 and len({base_name(each.component.name) for each in dits}) == 1:
        return [_stage("denoise", [each, *beside], placements) for each in dits]
    return [_stage("denoise", [*dits, *beside], placements)] if dits or beside else []


def _stage(phase: Phase, used: list[Placement], placements: tuple[Placement, ...]) -> StageWeights:
    weights = {each.component.name: each.stage_bytes for each in used}
    for each in placements:
        if each.component.name not in weights and each.idle_bytes:
            weights[each.component.name] = each.idle_bytes
    name = stage_text(phase, *(each.component.name for each in used))
    return StageWeights(name=name, components=weights, weights_bytes=sum(weights.values()))


def judge(placements: Iterable[Placement], machine: Machine) -> Verdict:
    """Whether the weights of every stage fit the VRAM budget, with the sentence that says so."""
    placements = tuple(placements)
    peak = max(stages(placements), key=lambda stage: stage.weights_bytes, default=None)
    peak_bytes = peak.weights_bytes if peak else 0
    deficit = max(0, peak_bytes - machine.budget_bytes)
    host_bytes = sum(host_bytes_of(each) for each in placements)
    pool = pool_bytes(machine)
    host_deficit = max(0, host_bytes - (machine.host.available_bytes if pool is None else pool - peak_bytes))
    shared_short = host_deficit if pool is not None else 0
    return Verdict(
        fits=deficit == 0 and not shared_short,
        certainty=None if deficit or shared_short else "likely",  # of weights alone, nothing is sure
        text=_shared_sentence(peak_bytes, host_bytes, shared_short) or _sentence(peak, machine.budget_bytes),
        deficit_bytes=deficit,
        host_bytes=host_bytes,
        host_deficit_bytes=host_deficit,
        warnings=pool_warnings(machine) or _host_warnings(machine, host_bytes, host_deficit),
    )


def _host_warnings(machine: Machine, host_bytes: int, short_bytes: int) -> tuple[str, ...]:
    if not short_bytes:
        return ()
    return (
        f"host memory is {format_bytes(short_bytes)} short of the {format_bytes(host_bytes)}"
        f" that offloaded weights need ({format_bytes(machine.host.available_bytes)} available).",
    )


def _shared_sentence(peak_bytes: int, host_bytes: int, short_bytes: int) -> str:
    if not short_bytes:
        return ""
    return (
        f"does not fit: weights peak at {format_bytes(peak_bytes)} on the GPU, and {format_bytes(host_bytes)} of host"
        f" copies lie in the same memory, {format_bytes(short_bytes)} over what may be used of it."
    )


def _sentence(peak: StageWeights | None, budget_bytes: int) -> str:
    if peak is None:
        return "nothing to place."
    over = peak.weights_bytes - budget_bytes
    if over <= 0:
        return weights_fit(peak.weights_bytes, peak.name, budget_bytes)
    weights = f"weights peak at {format_bytes(peak.weights_bytes)} in {peak.name}"
    return f"does not fit: {weights}, {format_bytes(over)} over the budget of {format_bytes(budget_bytes)}."


def weights_fit(peak_bytes: int, stage: str, budget_bytes: int) -> str:
    """The verdict on what has room for its weights, where nobody knows what activations take."""
    return (
        f"weights fit; activations not known: weights peak at {format_bytes(peak_bytes)} in {stage} of a budget of"
        f" {format_bytes(budget_bytes)}; {format_bytes(budget_bytes - peak_bytes)} is left for activations."
    )
