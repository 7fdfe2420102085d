"""Less asked for: the largest smaller workload that fits, verified by a trace of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from roost.facts.request import Workload
from roost.planner.search.columns import limits_of
from roost.planner.search.pricing import Pricer
from roost.planner.search.remedies.change import Change, Remedy
from roost.planner.search.remedies.smaller import AMOUNTS, Amount, amount, option, smaller

_TRIES = 2  # a line through one point, then through two


def less_of_one(asked: Change) -> Iterator[Remedy]:
    """Smaller batches, sizes and frames that fit, each by itself: the largest by the traced activations."""
    for what in AMOUNTS:
        found = _least_less(asked, what)
        if found is not None:
            yield asked.also(option(found, what))


def smaller_and_shorter(asked: Change) -> Iterator[Remedy]:
    """Fewer frames of the family's smallest size."""
    workload, family = asked.forecast.trace.workload, asked.case.profile
    small = smaller(workload, "size", 0.0, family.workload, family.sizes) if family.sizes else None
    smallest = _at(asked, small) if small else None
    short = _least_less(smallest, "frames") if smallest else None
    if small is not None and short is not None:
        yield asked.also(option(small, "size"), option(short, "frames"))


def _at(asked: Change, workload: Workload) -> Change | None:
    """The question of another workload; None where that can't be traced."""
    trace = asked.trace_other(workload) if asked.trace_other else None
    return replace(asked, forecast=replace(asked.forecast, trace=trace)) if trace else None


def _least_less(asked: Change, what: Amount) -> Workload | None:
    """The largest amount that fits, found by a line through what the traced amounts need."""
    workload, family = asked.forecast.trace.workload, asked.case.profile
    known = [(1.0, _need(asked))]
    share, tried = 1 / known[0][1] if known[0][1] > 0 else 0.0, 0
    for _ in range(_TRIES):
        smaller_one = smaller(workload, what, share, family.workload, family.sizes) if share > 0 else None
        if smaller_one is None or amount(smaller_one, what) == tried:
            return None
        change, tried = _at(asked, smaller_one), amount(smaller_one, what)
        if change is None:
            return None
        if change.fits():
            return smaller_one
        known.append((amount(smaller_one, what) / amount(workload, what), _need(change)))
        (one, need), (other, other_need) = known[-2:]
        if other_need <= 1:  # something else is short too, like host memory
            return None
        slope = (need - other_need) / (one - other)
        share = other - (other_need - 1) / slope if slope > 0 and math.isfinite(other_need) else 0.0
    return None


def _need(change: Change) -> float:
    """Activations over the room for them in the tightest use; infinite where weights alone are too much."""
    options = change.options(Pricer(change.forecast))
    smallest = [min(each, key=lambda one: (one.idle_bytes, one.own_bytes)) for each in options.values()]
    room_bytes = limits_of(change.forecast).vram_bytes - sum(each.idle_bytes for each in smallest)
    needs = [
        (each.own_bytes - each.held_bytes) / left if (left := room_bytes - each.held_bytes) > 0 else math.inf
        for each in smallest
    ]
    return max(needs, default=0.0)
