"""What a plan that the search found promises: that it surely fits, or by how much it may not, and what makes sure."""

from __future__ import annotations

import math
from dataclasses import replace

from roost.plan.figures import Predicted
from roost.planner.cost.budget import Verdict, pool_warnings, weights_fit
from roost.planner.cost.estimate import Forecast, beyond_limit_bytes, predict, surely_fits, taken_of
from roost.planner.placements import Placement
from roost.planner.search.comparison import Searched
from roost.units import format_bytes, format_seconds


def fitting_verdict(
    searched: Searched, placements: tuple[Placement, ...], predicted: Predicted, surer: tuple[str, ...] | None
) -> Verdict:
    """What a plan that the search found promises; ``surer`` is asked for in place of it, None where nobody looked."""
    forecast = searched.forecast
    sure, known = surely_fits(forecast, predicted), forecast.trace.no_dry_run is None
    doubt = () if sure or not known else (_doubt(searched, predicted, looked=surer is not None),)
    return Verdict(
        fits=True,
        certainty="sure" if sure else "likely",
        text=_promise(forecast, predicted, sure=sure) if known else _weights_fit(forecast, placements),
        deficit_bytes=0,
        host_bytes=predicted.host_bytes,
        host_deficit_bytes=0,
        activations_known=known,
        would_fit=surer or (),
        warnings=(*pool_warnings(forecast.machine), *doubt),
    )


def _weights_fit(forecast: Forecast, placements: tuple[Placement, ...]) -> str:
    weights = predict(replace(forecast, weights_only=True), placements)
    most = max(weights.stages, key=lambda stage: stage.peak_bytes, default=None)
    if most is None:
        return "nothing to place."
    return weights_fit(most.peak_bytes, most.name, forecast.machine.budget_bytes)


def _promise(forecast: Forecast, predicted: Predicted, *, sure: bool) -> str:
    """What is taken of what is there, at the upper end and likely, and where the most."""
    taken, there_bytes = taken_of(forecast, predicted)
    worst = max(predicted.stages, key=lambda stage: stage.peak_bytes, default=None)
    where = f", most in {worst.name}" if worst else ""
    high, mid, there = (format_bytes(each) for each in (taken.high, taken.mid, there_bytes))
    if sure:
        return f"fits: up to {high} of {there} free, likely {mid}{where}."
    return f"may not fit: likely {mid} of {there} free, up to {high}{where}."


def _doubt(searched: Searched, predicted: Predicted, *, looked: bool) -> str:
    """By how much a plan may not fit, and what makes it sure where nobody has looked for that."""
    forecast, aim, found = searched.forecast, searched.aim, searched.found
    taken, there_bytes = taken_of(forecast, predicted)
    beyond_bytes = beyond_limit_bytes(forecast, predicted)
    over = f"it may need {format_bytes(max(0, taken.high - there_bytes))} more than is free"
    if beyond_bytes > taken.high - there_bytes:
        over = f"it may need {format_bytes(beyond_bytes)} more than the budget and half of the headroom"
    if found.other is not None:
        premium = math.ceil(100 * found.premium) / 100
        return (
            f"{over}; a plan that surely fits takes {format_seconds(found.other.seconds)}: --max-premium {premium:g}."
        )
    if aim.certainty == "likely":
        return f"{over}; --certainty sure asks for a plan that surely fits."
    if "tiling" in aim.forbid:
        return f"{over}; no plan surely fits without tiling, which --forbid tiling forbids."
    return f"{over}, and no plan surely fits{'' if looked else '; a smaller --size or fewer --frames may'}."
