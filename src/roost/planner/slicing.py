"""Slicing: whether VAEs decode one sample after another, which a search may need where a call makes several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from roost.plan.schema import ChangedByDefault
from roost.planner.cost.estimate import Forecast
from roost.planner.placements import Placement, place
from roost.planner.rules.case import Case
from roost.planner.rules.table import apply_rules
from roost.planner.search.columns import Aim, size_all
from roost.planner.search.comparison import Searched
from roost.planner.search.pricing import Pricer
from roost.planner.search.search import SearchResult, can_fit, search
from roost.trace import UseTrace


def search_slicing(case: Case, ruled: tuple[Placement, ...], forecast: Forecast, aim: Aim) -> Searched:
    """What the search finds; once more with slices where the first look is not sure of a plan without tiles."""
    if aim.sliced is not None:
        return _sliced(case, ruled, forecast, aim, aim.sliced)
    found = _searched(case, ruled, forecast, aim)
    names = _sliceable(ruled, forecast, aim)
    if not names or _rank(found.found) == (True, True, True):
        return found
    again = _sliced(case, ruled, forecast, aim, names)
    # Where nothing fits, what would fit is easier with slices.
    return again if again.found.chosen is None or _rank(again.found) > _rank(found.found) else found


def surely_finds(case: Case, forecast: Forecast, aim: Aim) -> bool:
    """Whether the search takes a plan that surely fits; it is not run where bytes alone say that there is none."""
    ruled = place(case, apply_rules(case).decisions)
    names = _sliceable(ruled, forecast, aim) if aim.sliced is None else aim.sliced
    pricer = Pricer(replace(forecast, trace=forecast.trace.sliced(names)))
    options = size_all(case, ruled, pricer, aim)
    return can_fit(options, pricer, aim, surely=True) and search_slicing(case, ruled, forecast, aim).found.sure


def slicing_changes(searched: Searched, ruled: tuple[Placement, ...], whole: Forecast) -> Iterator[ChangedByDefault]:
    """What is sliced though nobody typed it, and what that costs beside the ``whole`` batch at once.

    ``ruled`` are the rules' placements, which have what was typed.
    """
    chosen, aim = searched.found.chosen, searched.aim
    if chosen is None or "slicing" in aim.allow or aim.sliced is not None:
        return
    for taken, rule in zip(chosen.options, ruled, strict=True):
        if taken.placement.slicing and not rule.slicing:
            untiled = replace(taken.placement, tiling=False)
            cost_s = Pricer(searched.forecast).option(untiled).seconds - Pricer(whole).option(untiled).seconds
            yield ChangedByDefault(component=rule.component.name, what="slicing", seconds=cost_s)


def _sliceable(ruled: tuple[Placement, ...], forecast: Forecast, aim: Aim) -> frozenset[str]:
    """The components whose uses take less as slices by the dry run, unless that is forbidden."""
    if "slicing" in aim.forbid:
        return frozenset()
    trace, known = forecast.trace, {each.component.name for each in ruled}
    slices = ((use, trace.variant(index, "sliced")) for index, use in enumerate(trace.uses))
    return frozenset(
        use.component for use, one in slices if use.component in known and one is not None and _is_less(one, use)
    )


def _is_less(one: UseTrace, other: UseTrace) -> bool:
    return one.activation_bytes.peak_bytes < other.activation_bytes.peak_bytes


def _sliced(case: Case, ruled: tuple[Placement, ...], forecast: Forecast, aim: Aim, names: frozenset[str]) -> Searched:
    placed = tuple(replace(each, slicing=each.slicing or each.component.name in names) for each in ruled)
    return _searched(case, placed, replace(forecast, trace=forecast.trace.sliced(names)), aim)


def _searched(case: Case, ruled: tuple[Placement, ...], forecast: Forecast, aim: Aim) -> Searched:
    return Searched(case=case, ruled=ruled, forecast=forecast, aim=aim, found=search(case, ruled, forecast, aim))


def _rank(found: SearchResult) -> tuple[bool, bool, bool]:
    """The better, the greater: something fits, surely, and without tiles that nobody asked for."""
    return found.chosen is not None, found.sure, not found.tiled
