"""``--policy search``: from facts, a trace and rates to the plan document of the best placement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from roost.facts.decider import Decider
from roost.facts.model import Inventory
from roost.facts.request import Workload
from roost.plan.figures import Alternative, Arithmetic, Predicted
from roost.plan.revision import revised
from roost.plan.schema import ChangedByDefault, PlanDocument
from roost.planner.answers import answer_to
from roost.planner.cost.budget import Verdict, judge
from roost.planner.cost.estimate import Forecast, predict
from roost.planner.cost.skipped_steps import cached_seconds
from roost.planner.documents.cost_model import arithmetic_record
from roost.planner.documents.records import alternative_record, trace_record
from roost.planner.documents.writer import Figures, Sought, document_of
from roost.planner.placements import Placement
from roost.planner.rules.case import Case, Decision
from roost.planner.ruling import Ruling, ruling_on
from roost.planner.search.columns import Aim, Objective, limits_of, tileable
from roost.planner.search.comparison import Searched, compare_plans
from roost.planner.search.option import Combination
from roost.planner.search.reasons import LEAST_WEIGHTS, notes_of, why_lost, why_of
from roost.planner.search.remedies import Change, Finds, LoadedAs, remedies, surer
from roost.planner.search.search import SearchResult
from roost.planner.search.shortfall import Shortfall
from roost.planner.search.verdict import fitting_verdict
from roost.planner.search_question import SearchQuestion
from roost.planner.slicing import slicing_changes, surely_finds
from roost.trace import Trace, of_role
from roost.units import format_bytes


def plan_by_search(asked: SearchQuestion) -> PlanDocument:
    """The best plan found, with what surely would fit if it may not; if nothing does, the rule plan and what would.

    Without a dry run, a plan leaves room for what activations are guessed to take where it can; only bytes of weights
    refuse. Raises UsageError as ``plan_by_rules`` does.
    """
    whole, answer = asked.question.inventory, answer_to(asked)
    asked, ruling, searched = answer.asked, answer.ruling, answer.searched
    forecast, found = searched.forecast, searched.found
    if found.chosen is None:
        return _infeasible(asked, ruling, forecast, found)
    placements = _placements(found.chosen)
    predicted, arithmetic = predict(forecast, placements), arithmetic_record(forecast, placements)
    cache = asked.question.cache
    if cache is not None and not predicted.guessed:
        predicted = revised(predicted, cached_s=cached_seconds(cache, forecast, placements, predicted))
    also, alternatives = ([], []) if forecast.weights_only else _alternatives(forecast, found, found.chosen)
    compared = None if forecast.weights_only else compare_plans(searched, found.chosen, predicted)
    strategies = {each.component.name: each.strategy for each in placements}
    return document_of(
        ruling,
        tuple(
            _in_blocks(_explained(each, predicted, arithmetic, forecast, asked.aim.objective), whole)
            for each in placements
        ),
        fitting_verdict(searched, placements, predicted, _surer(asked, ruling.case, searched)),
        sought=Sought(
            aim=asked.aim, generations=asked.generations, may_tile=_may_tile(asked.aim, forecast, placements)
        ),
        figures=Figures(
            trace=trace_record(asked.trace),
            predicted=revised(predicted, notes=notes_of(compared, strategies) if compared else []),
            compared=compared,
            arithmetic=arithmetic,
            alternatives=alternatives,
            also=also,
            host_turns=forecast.host_turns(placements),
            changed=[
                *slicing_changes(searched, ruling.placements, asked.forecast(ruling.case)),
                *(ChangedByDefault(component=name, what="tiling", seconds=cost) for name, cost in found.tiled),
            ],
        ),
        warnings=(*asked.notes, *_trace_warnings(forecast), *_rounded(placements)),
    )


def _may_tile(aim: Aim, forecast: Forecast, placements: Iterable[Placement]) -> frozenset[str]:
    """The components that a run may tile when nothing else is left to give up: as the search itself might have."""
    if "tiling" in aim.forbid or aim.tiled is not None:
        return frozenset()
    typed = {each.component.name for each in placements if "tiling" in each.decision.parameters}
    return frozenset(name for name in forecast.components if name not in typed and tileable(name, forecast))


def _placements(combination: Combination) -> tuple[Placement, ...]:
    return tuple(each.placement for each in combination.options)


def _in_blocks(placement: Placement, whole: Inventory) -> Placement:
    """What doesn't stream has its blocks as the ``whole`` model has them, whatever level was searched."""
    if placement.streaming is not None or not placement.component.leaf_level:
        return placement
    return replace(placement, component=whole.component(placement.component.name))


def _explained(
    placement: Placement, predicted: Predicted, arithmetic: Arithmetic, forecast: Forecast, objective: Objective
) -> Placement:
    """What was typed keeps its reason; everything else was the search's, also where it agrees with a rule."""
    if placement.decision.decided_by.typed or placement.strategy == "fsdp":
        return placement
    why = LEAST_WEIGHTS if forecast.weights_only else why_of(placement, predicted, arithmetic, objective)
    return replace(placement, decision=Decision(strategy=placement.strategy, decided_by=Decider("search"), why=why))


def _rounded(placements: Iterable[Placement]) -> list[str]:
    names = [each.component.name for each in placements if each.component.storage is not None]
    if not names:
        return []
    return [f"linear weights of {', '.join(names)} are rounded to 8 bits (--allow fp8), which changes pictures."]


def _trace_warnings(forecast: Forecast) -> list[str]:
    trace = forecast.trace
    if trace.no_dry_run is None:
        return [f"{name} was dry-run without its step cache; what that keeps isn't counted." for name in trace.uncached]
    if forecast.weights_only:
        rest = "nobody knows what activations take; VRAM figures are of weights alone, and work is guessed from sizes."
    else:
        rest = "work and activations are guessed from sizes."
    return [f"no dry run ({trace.source}): {rest}"]


def _alternatives(forecast: Forecast, found: SearchResult, chosen: Combination) -> tuple[list[str], list[Alternative]]:
    """The chosen plan's other names; and the rule plan, the runner-up, everything resident, the rest of the front."""
    named: list[tuple[str, Combination | None]] = [
        ("rule plan", found.ruled),
        ("runner-up", found.runner_up),
        ("all resident", found.all_resident),
    ]
    front = [(f"front, {format_bytes(each.vram_bytes + forecast.context_bytes())}", each) for each in found.front]
    budget_bytes = limits_of(forecast).vram_bytes
    distinct: list[tuple[Combination, list[str]]] = [(chosen, [])]
    for name, other in named:
        if other is None:
            continue
        same = next((names for each, names in distinct if _key(each) == _key(other)), None)
        if same is None:
            distinct.append((other, [name]))
        else:
            same.append(name)
    for name, other in front:  # what has a name keeps it
        if all(_key(each) != _key(other) for each, _ in distinct):
            distinct.append((other, [name]))
    (_, also), *others = distinct
    return also, [
        alternative_record(names, _placements(each), predict(forecast, _placements(each)), reason)
        for each, names in others
        for reason in [why_lost(each, chosen, budget_bytes)]
    ]


def _key(combination: Combination) -> list[object]:
    return [
        (each.placement.strategy, each.placement.streaming, each.placement.tier, each.placement.lossy)
        for each in combination.options
    ]


def _infeasible(asked: SearchQuestion, ruling: Ruling, forecast: Forecast, found: SearchResult) -> PlanDocument:
    ruled, missing = ruling.placements, found.shortfall
    assert missing is not None  # the search sets one of the two
    fitting = _remedies(asked, ruling.case, forecast, missing) if asked.seek_remedies else ()
    return document_of(
        ruling,
        ruled,
        _short(judge(ruled, forecast.machine), missing, fitting, asked.trace.no_dry_run),
        sought=Sought(aim=asked.aim, generations=asked.generations),
        figures=Figures(
            trace=trace_record(asked.trace),
            predicted=predict(forecast, ruled),
            arithmetic=arithmetic_record(forecast, ruled),
        ),
        warnings=(*asked.notes, *_trace_warnings(forecast)),
    )


def _short(by_weights: Verdict, missing: Shortfall, would_fit: tuple[str, ...], why_unknown: str | None) -> Verdict:
    """What the search lacks; of the other memory, what the rule plan's weights lack."""
    would = f" Would fit: {'; '.join(would_fit)}." if would_fit else ""
    unknown = f" That is of weights alone: activations are not known, as the dry run failed ({why_unknown})."
    finding = f"does not fit: {missing.sentence()}{unknown if why_unknown is not None else ''}"
    of_vram = missing.memory == "VRAM"
    of_host = missing.also if of_vram else missing
    return replace(
        by_weights,
        fits=False,
        certainty=None,
        text=finding + would,
        finding=finding if would_fit else None,
        lacks=missing.headline(),
        would_fit=would_fit,
        activations_known=why_unknown is None,
        deficit_bytes=missing.short_bytes if of_vram else by_weights.deficit_bytes,
        host_deficit_bytes=by_weights.host_deficit_bytes if of_host is None else of_host.short_bytes,
    )


def _remedies(asked: SearchQuestion, case: Case, forecast: Forecast, missing: Shortfall) -> tuple[str, ...]:
    found = remedies(_change(asked, case, forecast), missing, _loaded_as(asked))
    return tuple(map(asked.spell, found))


def _surer(asked: SearchQuestion, case: Case, searched: Searched) -> tuple[str, ...] | None:
    """What surely would fit in place of a plan that likely does; None where nobody wants to know."""
    found = searched.found
    if not asked.seek_remedies or (found.unsure is None and found.other is None):
        return None
    change = _change(asked, case, asked.forecast(case), surely_finds)
    return tuple(map(asked.spell, surer(change, found.unsure, found.premium, _loaded_as(asked, surely_finds))))


def _loaded_as(asked: SearchQuestion, finds: Finds | None = None) -> LoadedAs | None:
    """The question in other dtypes; None where it can't be asked, or this one could not be dry-run."""
    other_question = asked.loaded_as
    if other_question is None or asked.trace.no_dry_run is not None:
        return None

    def loaded_as(dtype: str) -> Change | None:
        other = other_question(dtype)
        if other.trace.no_dry_run is not None:
            return None
        retyped = ruling_on(other.question).case
        return _change(other, retyped, other.forecast(retyped), finds)

    return loaded_as


def _change(asked: SearchQuestion, case: Case, forecast: Forecast, finds: Finds | None = None) -> Change:
    """The question as it is, for changes of it; other workloads only where this one could be traced."""
    names, run = {each.name for each in case.components}, asked.trace_other

    def trace_other(workload: Workload) -> Trace | None:
        trace = run(workload) if run else None
        return of_role(trace, names) if trace else None

    traceable = run is not None and asked.trace.no_dry_run is None
    other = trace_other if traceable else None
    return Change(case=case, forecast=forecast, aim=asked.aim, trace_other=other, surely_finds=finds)
