"""What "fits" promises: at the upper end of everything that is predicted, the memory is there."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from roost.facts.request import Choices
from roost.planner.by_search import plan_by_search
from roost.planner.cost.costs import CostModel
from roost.planner.cost.estimate import predict, surely_fits
from roost.planner.rule_plan import traced_rule_plan
from roost.planner.rules.selectors import parse_set
from roost.planner.search.columns import Aim
from roost.planner.search.search import search
from roost.planner.search_question import SearchQuestion
from roost.trace import Trace, VaeVariant
from roost.units import GiB, MiB
from traces import case_of, forecast, rates, trace, use
from worlds import component, inventory, machine, question

TERA = 10**12
WORLDS = 1000
BATCHES = [pytest.param(first, marks=pytest.mark.slow if first else ()) for first in range(0, WORLDS, 50)]
PARTS = (
    component("transformer", 12 * GiB, blocks=24),
    component("text_encoder", 6 * GiB, blocks=12, position=1),
    component("vae", GiB // 2, position=2),
)


def traced(decode_bytes: int = 6 * GiB, tiled_s: float = 1.2) -> Trace:
    decode = use(PARTS[2], 60 * TERA, decode_bytes, "decode")
    calls = trace((use(PARTS[1], TERA, GiB // 4), 2), (use(PARTS[0], 50 * TERA, GiB), 40), (decode, 1), steps=20)
    tiled = use(PARTS[2], int(60 * TERA * tiled_s), decode_bytes // 8, "decode")
    return replace(calls, variants=(VaeVariant(use=2, setting="tiled", trace=tiled),))


def asked(free_gib: float, made: Trace | None = None, *, headroom_gib: float = 1, **changes: object) -> SearchQuestion:
    choices = changes.pop("choices", None)
    assert choices is None or isinstance(choices, Choices)
    found = SearchQuestion(
        question=question(inventory(*PARTS), machine(free_gib, headroom_gib=headroom_gib), choices),
        trace=made or traced(),
        model=CostModel(rates=rates(), backend="cuda"),
        aim=Aim(),
        seek_remedies=False,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def _world(seed: int):
    chance = Random(seed)
    names = ("transformer", "text_encoder", "vae")[: chance.randint(2, 3)]
    parts = tuple(
        component(name, chance.randint(1, 12) * GiB, blocks=chance.randint(0, 6), position=position)
        for position, name in enumerate(names)
    )
    uses = [use(each, chance.randint(1, 60) * TERA, chance.randint(0, 4096) * MiB) for each in parts]
    order = [chance.randrange(len(uses)) for _ in range(chance.randint(0, 2))]
    calls = [(uses[index], chance.randint(1, 5)) for index in (*range(len(uses)), *order)]
    made = forecast(
        parts,
        trace(*calls),
        free_gib=chance.randint(3, 40),
        ram_gib=chance.choice([8, 64]),
        generations=chance.randint(1, 3),
    )
    return (*case_of(parts, made), made)


@pytest.mark.parametrize("first", BATCHES)
def test_a_plan_that_surely_fits_has_the_memory_at_the_upper_end_of_every_interval(first: int) -> None:
    for seed in range(first, first + 50):
        case, ruled, made = _world(seed)
        found = search(case, ruled, made, Aim())
        if found.chosen is None:
            continue
        placements = tuple(each.placement for each in found.chosen.options)
        predicted = predict(made, placements)
        assert predicted.process_bytes is not None
        assert predicted.process_bytes.mid <= made.machine.gpu.free_bytes, seed
        if found.sure:
            assert surely_fits(made, predicted), seed
            at_worst = made.timeline(placements, "slow")
            assert at_worst.reserved_bytes <= made.machine.gpu.free_bytes, seed


@pytest.mark.slow
@pytest.mark.parametrize("headroom_gib", [6, *(pytest.param(each, marks=pytest.mark.slow) for each in (0, 1))])
def test_what_surely_fits_may_be_reserved_by_the_run_s_allocator(headroom_gib: float) -> None:
    whole = Aim(forbid=frozenset({"tiling"}))
    found = []
    large = traced(decode_bytes=24 * GiB)
    for budget_gib in (27, 29, 30, 34):
        question = asked(budget_gib + headroom_gib, large, headroom_gib=headroom_gib, aim=whole)
        plan = plan_by_search(question)
        if plan.predicted is not None and plan.predicted.reserved_bytes is not None:
            within = plan.predicted.reserved_bytes.high <= question.question.machine.limit_bytes
            assert within or plan.certainty != "sure"
            found.append((plan.certainty, within))
    assert ("sure", True) in found
    assert headroom_gib != 6 or ("likely", False) in found


@pytest.mark.slow
def test_more_memory_makes_a_plan_no_less_sure() -> None:
    order = {None: 0, "likely": 1, "sure": 2}
    found = [
        order[plan_by_search(asked(free, aim=Aim(forbid=frozenset({"tiling"})))).certainty] for free in (6, 8.6, 10)
    ]
    assert found == sorted(found)
    assert set(found) == {0, 1, 2}


def test_a_sure_plan_that_is_too_dear_gives_way_and_is_named() -> None:
    slow = traced(tiled_s=400.0)
    likely = plan_by_search(asked(8.6, slow))
    assert (likely.certainty, likely.components["vae"].tiling) == ("likely", False)
    assert any("--max-premium" in each for each in likely.warnings)
    dear = plan_by_search(asked(8.6, slow, aim=Aim(max_premium=100.0)))
    assert (dear.certainty, dear.components["vae"].tiling) == ("sure", True)
    assert dear.changed_by_default[0].seconds > 0


def test_who_asks_for_what_is_likely_gets_no_tiling_that_only_sureness_needs() -> None:
    likely = plan_by_search(asked(8.6, aim=Aim(certainty="likely")))
    assert (likely.certainty, likely.changed_by_default) == ("likely", [])
    assert any("--certainty sure" in each for each in likely.warnings)


def test_what_was_typed_is_not_tiled_by_default() -> None:
    typed = plan_by_search(asked(8.6, choices=Choices(sets=(parse_set("vae=resident,tiling=false"),))))
    assert not typed.components["vae"].tiling
    assert not typed.changed_by_default


@pytest.mark.slow
def test_a_run_may_tile_what_the_search_might_have_tiled() -> None:
    typed = Choices(sets=(parse_set("vae=resident,tiling=false"),))
    plans = {
        "open": plan_by_search(asked(40)),
        "likely": plan_by_search(asked(8.6, aim=Aim(certainty="likely"))),
        "forbidden": plan_by_search(asked(40, aim=Aim(forbid=frozenset({"tiling"})))),
        "typed": plan_by_search(asked(40, choices=typed)),
        "compared": plan_by_search(asked(40, aim=Aim(tiled=frozenset()))),
        "rules": traced_rule_plan(asked(40)),
    }
    may = {what: [name for name, each in plan.components.items() if each.may_tile] for what, plan in plans.items()}
    assert {what for what, names in may.items() if names} == {"open", "likely"}
    assert may["open"] == may["likely"] == ["vae"]


def test_a_plan_without_a_dry_run_is_never_sure() -> None:
    unknown = plan_by_search(asked(40, replace(traced(), no_dry_run="planted")))
    assert (unknown.fits, unknown.certainty) == (True, "likely")
