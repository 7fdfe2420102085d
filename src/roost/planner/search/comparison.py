"""The chosen plan beside others: model offload, the runner-up, all resident, more memory, more generations."""

from __future__ import annotations

from dataclasses import dataclass, replace

from roost.facts.stage import stage_of, stage_text
from roost.plan.figures import Binding, Memory, MoreGenerations, MoreMemory, OtherPlan, PlanComparison, Predicted
from roost.planner.cost.estimate import Forecast
from roost.planner.placements import Placement, lossy_of
from roost.planner.rules.case import Case
from roost.planner.rules.names import kind_of
from roost.planner.search.columns import MORE_BYTES, Aim, limits_of
from roost.planner.search.levels import NOISE, NOTHING
from roost.planner.search.option import Combination
from roost.planner.search.pricing import Pricer
from roost.planner.search.search import SearchResult, search

# Who stays with a model makes some pictures more than one.
_MANY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What was searched, under which aim, and what was found."""

    case: Case
    ruled: tuple[Placement, ...]
    forecast: Forecast
    aim: Aim
    found: SearchResult


def compare_plans(searched: Searched, chosen: Combination, predicted: Predicted) -> PlanComparison:
    """The record of what else there was, and of what binds."""
    found, forecast = searched.found, searched.forecast
    more = [
        _more(found, "VRAM", MORE_BYTES, found.more_vram, forecast),
        _more(found, "host memory", None, found.more_host, forecast),
    ]
    longest = max(predicted.stages, key=lambda stage: stage.seconds, default=None)
    paces = [Binding(what=longest.binding, stage=longest.name)] if longest else []
    kept = [each for each in more if each is not None]
    worthwhile_s = (NOISE - 1) * chosen.seconds
    memories = [Binding(what=each.memory, stage=each.stage) for each in kept if each.saves_s > worthwhile_s]
    return PlanComparison(
        more_memory=kept,
        model_offload=_beside(_model_offload(chosen, forecast), chosen, forecast),
        runner_up=_beside(found.runner_up, chosen, forecast) if found.runner_up else None,
        all_resident=_beside(found.all_resident, chosen, forecast) if found.all_resident else None,
        binds=[*paces, *memories],
        generations=forecast.generations,
        more_generations=_more_generations(searched, chosen),
    )


def _more_generations(searched: Searched, chosen: Combination) -> MoreGenerations | None:
    """What would be chosen for more than the one generation that was asked for, where its load outweighs it."""
    forecast = searched.forecast
    seconds_count = forecast.generations == 1 and searched.aim.objective == "seconds"
    if not seconds_count or chosen.load_s <= chosen.next_s or _never_waits(chosen, forecast):
        return None
    many = search(searched.case, searched.ruled, replace(forecast, generations=_MANY), searched.aim).chosen
    if many is None or NOISE * many.next_s >= chosen.next_s:
        return None
    differs: dict[str, str] = {
        one.placement.component.name: one.placement.strategy
        for one, taken in zip(many.options, chosen.options, strict=True)
        if _moves(one.placement) != _moves(taken.placement)
    }
    return MoreGenerations(generations=_MANY, load_s=many.load_s, next_s=many.next_s, differs=differs)


def _never_waits(chosen: Combination, forecast: Forecast) -> bool:
    """Whether a generation is as good as compute alone: then no placement makes a later one faster."""
    costs = forecast.costs("mid", lossy_of(each.placement for each in chosen.options))
    compute_s = sum(costs[index].compute_s * count for index, count in forecast.trace.sequence)
    return chosen.next_s <= NOISE * compute_s


def _moves(placement: Placement) -> tuple[object, ...]:
    return placement.strategy, placement.streaming, placement.tier, placement.linger


def _more(
    found: SearchResult, memory: Memory, more_bytes: int | None, better: Combination | None, forecast: Forecast
) -> MoreMemory | None:
    """What the fastest plan with more of a memory saves over the fastest without."""
    if better is None or found.fastest is None:
        return None
    saved_s = found.fastest.seconds - better.seconds
    if saved_s <= NOTHING * found.fastest.seconds:
        return MoreMemory(memory=memory, bytes=more_bytes, saves_s=0.0, stage=None)
    return MoreMemory(
        memory=memory, bytes=more_bytes, saves_s=saved_s, stage=_stage_that_gains(found.fastest, better, forecast)
    )


def _stage_that_gains(before: Combination, after: Combination, forecast: Forecast) -> str | None:
    """The stage of the component whose own seconds fall the most."""
    gains = [
        (one.seconds - other.seconds, one.placement.component)
        for one, other in zip(before.options, after.options, strict=True)
    ]
    component = max(gains, key=lambda gain: gain[0])[1]
    methods = [use.method for use in forecast.trace.uses if use.component == component.name]
    if not methods:
        return None
    key = stage_of(component.name, kind_of(component), methods[0])
    return stage_text(key.phase, key.component)


def _beside(other: Combination, chosen: Combination, forecast: Forecast) -> OtherPlan:
    return OtherPlan(
        total_s=other.seconds,
        gain=1 - chosen.seconds / other.seconds if other.seconds else 0.0,
        short_bytes=max(0, other.vram_bytes - limits_of(forecast).vram_bytes),
        differs={
            one.placement.component.name: one.placement.strategy
            for one, taken in zip(other.options, chosen.options, strict=True)
            if one.placement.strategy != taken.placement.strategy
        },
    )


def _model_offload(chosen: Combination, forecast: Forecast) -> Combination:
    """The plan that moves whole components in and back, from pageable memory; tiled where the chosen one is."""
    pricer = Pricer(forecast)
    moved = (
        replace(
            each.placement, strategy="component-offload", streaming=None, linger=False, tier="pageable", fsdp_shards=1
        )
        for each in chosen.options
    )
    return pricer.combination(pricer.option(each) for each in moved)
