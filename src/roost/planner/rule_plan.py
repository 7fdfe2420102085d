"""The rule plan beside what is known of the model's calls: its verdict with activations, and its prediction."""

from __future__ import annotations

from roost.plan.schema import PlanDocument
from roost.planner.by_rules import case_of
from roost.planner.by_search import SearchQuestion, forecast_of
from roost.planner.cost.estimate import Forecast, predict
from roost.planner.documents.cost_model import arithmetic_record
from roost.planner.documents.records import predicted_record, trace_record
from roost.planner.documents.writer import document_of
from roost.planner.placements import Placement, place
from roost.planner.rules.roles import RoleView
from roost.planner.rules.table import Outcome, apply_rules
from roost.planner.search.pricing import Pricer
from roost.planner.search.search import limits_of
from roost.units import format_bytes


def traced_rule_plan(asked: SearchQuestion) -> PlanDocument:
    """What the rules decide for the question; ``fits`` counts activations, where a dry run has them."""
    role, outcome, placements, forecast = _decided(asked)
    return _judged(document_of(asked.question, role, outcome, placements), placements, forecast)


def predicted_rule_plan(asked: SearchQuestion) -> PlanDocument:
    """The same, with what that would take."""
    _, _, placements, forecast = _decided(asked)
    return traced_rule_plan(asked).model_copy(
        update={
            "trace": trace_record(asked.trace),
            "predicted": predicted_record(predict(forecast, placements)),
            "arithmetic": arithmetic_record(forecast, placements),
        }
    )


def _decided(asked: SearchQuestion) -> tuple[RoleView, Outcome, tuple[Placement, ...], Forecast]:
    case, role = case_of(asked.question)
    outcome = apply_rules(case)
    return role, outcome, place(case, outcome.decisions), forecast_of(asked, case)


def _judged(document: PlanDocument, placements: tuple[Placement, ...], forecast: Forecast) -> PlanDocument:
    """The document with activations in its verdict; one that doesn't fit by weights keeps that one."""
    if forecast.trace.no_dry_run is not None or not document.fits or not placements:
        return document
    pricer = Pricer(forecast)
    options = [pricer.sized(each) for each in placements]
    most = max(options, key=lambda each: each.own_bytes)
    needed_bytes = sum(each.idle_bytes for each in options) + most.own_bytes
    limit_bytes = limits_of(forecast).vram_bytes
    over_bytes = max(0, needed_bytes - limit_bytes)
    needs = f"with activations, {most.placement.component.name} in use needs {format_bytes(needed_bytes)}"
    may = f"and {format_bytes(max(0, limit_bytes))} may be used."
    verdict = f"does not fit: {needs}, {may} --policy search finds what fits, if anything does."
    budget = {
        "verdict": verdict if over_bytes else f"fits: {needs}, {may}",
        "activations_known": True,
        "deficit_bytes": over_bytes,
    }
    return document.model_copy(update={"fits": not over_bytes, "budget": document.budget.model_copy(update=budget)})
