"""Plans by search of a made-up video model, for tests of what reads plans."""

from __future__ import annotations

import functools
from dataclasses import replace

from roost.facts.model import Component
from roost.facts.request import Choices
from roost.plan import PlanDocument
from roost.planner.by_rules import plan_by_rules
from roost.planner.by_search import plan_by_search
from roost.planner.cost.costs import CostModel
from roost.planner.rules.selectors import parse_set
from roost.planner.search.columns import Aim
from roost.planner.search_question import SearchQuestion
from roost.units import GiB
from traces import rates, trace, use
from worlds import component, inventory, machine, question

TERA = 10**12
STEPS = 40
PARTS = (
    component("transformer", 28 * GiB, blocks=40),
    component("text_encoder", 10 * GiB, blocks=24, position=1),
    component("vae", GiB // 2, position=2),
)
USES = (
    (use(PARTS[1], TERA, GiB // 4), 2),
    (use(PARTS[0], 50 * TERA, 2 * GiB), 2 * STEPS),
    (use(PARTS[2], 60 * TERA, 6 * GiB, "decode"), 1),
)


def searched(
    free_gib: float = 20, *sets: str, parts: tuple[Component, ...] = PARTS, link: float = 20e9, **changes: object
) -> PlanDocument:
    """The searched plan on a card with so much free, under ``--set`` options; ``link`` in bytes per second."""
    if changes or parts is not PARTS:
        return _search(free_gib, sets, parts, link, **changes)
    return _searched(free_gib, sets, link)


def forget() -> None:
    """Plans anew, for tests that reword what plans say."""
    _searched.cache_clear()


@functools.cache
def _searched(free_gib: float, sets: tuple[str, ...], link: float) -> PlanDocument:
    return _search(free_gib, sets, PARTS, link)


def _search(
    free_gib: float, sets: tuple[str, ...], parts: tuple[Component, ...], link: float, **changes: object
) -> PlanDocument:
    names = {each.name for each in parts}
    calls = trace(*((each, calls) for each, calls in USES if each.component in names), steps=STEPS)
    choices = Choices(sets=tuple(map(parse_set, sets)))
    made = SearchQuestion(
        question=question(inventory(*parts), machine(free_gib), choices, workload=calls.workload),
        trace=calls,
        model=CostModel(rates=rates(link), backend="cuda"),
        aim=Aim(),
    )
    return plan_by_search(replace(made, **changes))  # type: ignore[arg-type]


def ruled(free_gib: float = 20) -> PlanDocument:
    """The same model's rule plan, which has no prediction."""
    return plan_by_rules(question(inventory(*PARTS), machine(free_gib)))
