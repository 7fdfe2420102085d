"""The rule plan beside what is known of the model's calls: its verdict with activations, and its prediction."""

from __future__ import annotations

from dataclasses import replace

from roost.plan.schema import PlanDocument
from roost.planner.cost.budget import Verdict, judge
from roost.planner.cost.estimate import Forecast, predict
from roost.planner.documents.cost_model import arithmetic_record
from roost.planner.documents.records import trace_record
from roost.planner.documents.writer import Figures, document_of
from roost.planner.placements import Placement
from roost.planner.ruling import ruling_on
from roost.planner.search.columns import limits_of
from roost.planner.search.pricing import Pricer
from roost.planner.search_question import SearchQuestion
from roost.units import format_bytes


def traced_rule_plan(asked: SearchQuestion) -> PlanDocument:
    """What the rules decide for the question; ``fits`` counts activations, where a dry run has them."""
    ruling = ruling_on(asked.question)
    return document_of(ruling, ruling.placements, _verdict(ruling.placements, asked.forecast(ruling.case)))


def predicted_rule_plan(asked: SearchQuestion) -> PlanDocument:
    """The same, with what that would take; it tiles what the aim says every plan has to tile."""
    ruling = ruling_on(asked.question)
    tiled = asked.aim.tiled or frozenset()
    placements = tuple(replace(each, tiling=each.tiling or each.component.name in tiled) for each in ruling.placements)
    forecast = asked.forecast(ruling.case)
    figures = Figures(
        trace=trace_record(asked.trace),
        predicted=predict(forecast, placements),
        arithmetic=arithmetic_record(forecast, placements),
    )
    return document_of(ruling, placements, _verdict(placements, forecast), figures=figures)


def _verdict(placements: tuple[Placement, ...], forecast: Forecast) -> Verdict:
    """Whether it fits with activations; what doesn't fit by weights keeps that verdict."""
    by_weights = judge(placements, forecast.machine)
    if forecast.trace.no_dry_run is not None or not by_weights.fits or not placements:
        return by_weights
    pricer = Pricer(forecast)
    options = [pricer.sized(each) for each in placements]
    most = max(options, key=lambda each: each.own_bytes)
    needed_bytes = sum(each.idle_bytes for each in options) + most.own_bytes
    limit_bytes = limits_of(forecast).vram_bytes
    over_bytes = max(0, needed_bytes - limit_bytes)
    sure = sum(each.idle_bytes for each in options) + max(each.sure_bytes for each in options) <= limit_bytes
    needs = f"with activations, {most.placement.component.name} in use needs {format_bytes(needed_bytes)}"
    may = f"and {format_bytes(max(0, limit_bytes))} may be used."
    short = f"does not fit: {needs}, {may} --policy search finds what fits, if anything does."
    return replace(
        by_weights,
        fits=not over_bytes,
        certainty=None if over_bytes else "sure" if sure else "likely",
        text=short if over_bytes else f"{'fits' if sure else 'may not fit'}: {needs}, {may}",
        activations_known=True,
        deficit_bytes=over_bytes,
    )
