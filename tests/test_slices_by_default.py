"""A call that makes several: its VAE decodes one after another, and then in tiles, where nothing else surely fits."""

from __future__ import annotations

from dataclasses import replace

from roost.planner.by_search import plan_by_search
from roost.planner.cost.costs import CostModel
from roost.planner.search.columns import Aim
from roost.planner.search_question import SearchQuestion
from roost.trace import VaeSetting, VaeVariant
from roost.units import GiB
from traces import rates, trace, use
from worlds import component, inventory, machine, question

TERA = 10**12
PARTS = (component("transformer", 4 * GiB, blocks=4), component("vae", GiB // 2, position=1))
WHOLE, TAKEN = 24 * GiB, {"tiled": 10 * GiB, "sliced": 12 * GiB, "tiled slices": GiB}
SETTINGS: tuple[VaeSetting, ...] = ("tiled", "sliced", "tiled slices")


def decode(taken: int):
    return use(PARTS[1], 66 * TERA, taken, "decode")


CALLS = trace((use(PARTS[0], 50 * TERA, GiB), 8), (decode(WHOLE), 1), steps=8)
BATCH = replace(CALLS, variants=tuple(VaeVariant(use=1, setting=each, trace=decode(TAKEN[each])) for each in SETTINGS))


def asked(free_gib: float, **aim) -> SearchQuestion:
    return SearchQuestion(
        question=question(inventory(*PARTS), machine(free_gib)),
        trace=BATCH,
        model=CostModel(rates=rates(), backend="cuda"),
        aim=Aim(**aim),
        seek_remedies=False,
    )


def test_slices_come_before_tiles_and_only_where_they_are_needed() -> None:
    found = [plan_by_search(asked(free)) for free in (40, 20, 6)]
    switches = [(plan.components["vae"].slicing, plan.components["vae"].tiling) for plan in found]
    assert switches == [(False, False), (True, False), (True, True)]
    changed = [[each.what for each in plan.changed_by_default] for plan in found]
    assert changed == [[], ["slicing"], ["slicing", "tiling"]]
    assert [plan.certainty for plan in found] == ["sure"] * 3


def test_slices_that_are_forbidden_are_not_taken_and_those_of_another_plan_are() -> None:
    assert not plan_by_search(asked(20, forbid=frozenset({"slicing"}))).components["vae"].slicing
    alike = plan_by_search(asked(40).with_bits_of(plan_by_search(asked(20)))).components["vae"]
    assert (alike.slicing, alike.tiling) == (True, False)


def test_slices_that_were_allowed_are_no_change_by_default() -> None:
    plan = plan_by_search(asked(20, allow=frozenset({"slicing"})))
    assert plan.components["vae"].slicing
    assert plan.changed_by_default == []
