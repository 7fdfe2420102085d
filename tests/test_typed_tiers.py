"""Where masters lie, as typed: ``--set dit=layerwise-offload,pinned=20,mapped=10`` counts blocks of each tier."""

from __future__ import annotations

import pytest

from roost.errors import UsageError
from roost.facts.request import Choices
from roost.plan import PlanDocument
from roost.plan.schema import ComponentPlan
from roost.planner.by_rules import plan_by_rules
from roost.planner.rules.selectors import parse_set
from roost.units import GiB
from searched_plans import searched
from worlds import component, inventory, machine, question

DIT = component("transformer", 40 * GiB, blocks=40)
TEXT = component("text_encoder", 10 * GiB, blocks=24, position=1)
CAST = component("transformer", 40 * GiB, blocks=40, bytes_by_dtype={"F32": 80 * GiB})


def ruled(*sets: str, parts=(DIT, TEXT), ram_gib: float = 200) -> PlanDocument:
    choices = Choices(sets=tuple(map(parse_set, sets)))
    return plan_by_rules(question(inventory(*parts), machine(24, ram_gib=ram_gib), choices))


def tiers(planned: ComponentPlan) -> tuple[int, int, int]:
    assert planned.master is not None
    return planned.master.pinned, planned.master.pageable, planned.master.mapped


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("pinned=20,mapped=10", (20, 10, 10)),
        ("pinned=40", (40, 0, 0)),
        ("pinned=5", (5, 35, 0)),
        ("mapped=40", (0, 0, 40)),
        ("mapped=0", (0, 40, 0)),
        ("pageable=7,mapped=3", (0, 37, 3)),
        ("pinned=1,pageable=2,mapped=37", (1, 2, 37)),
        ("resident_blocks=30,pinned=12,mapped=8", (12, 20, 8)),
    ],
)
@pytest.mark.parametrize("ram_gib", [30, 200])
def test_blocks_get_the_tiers_that_were_typed_and_the_rest_are_pageable(
    typed: str, expected: tuple[int, int, int], ram_gib: float
) -> None:
    plan = ruled(f"dit=layerwise-offload,{typed}", ram_gib=ram_gib)
    assert tiers(plan.components["transformer"]) == expected


@pytest.mark.parametrize("typed", ["pinned=20,mapped=10", "pageable=40", "mapped=40", "pinned=40"])
def test_the_search_never_changes_a_typed_tier(typed: str) -> None:
    option = f"transformer=layerwise-offload,{typed}"
    plan = searched(20, option)
    assert plan.fits
    assert tiers(plan.components["transformer"]) == tiers(ruled(option).components["transformer"])
    others = [each.components["transformer"] for each in plan.alternatives]
    streamed = [tiers(each) for each in others if each.strategy == "layerwise-offload"]
    assert {*streamed} <= {tiers(plan.components["transformer"])}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("pinned=41", "41 masters are more than the 40 blocks of component 'transformer'; give at most 40 in all"),
        ("pinned=20,pageable=20,mapped=1", "41 masters are more than the 40 blocks"),
        ("mapped=-1", "mapped must be a whole number from 0"),
        ("pinned=all", "pinned must be a whole number from 0"),
    ],
)
def test_too_many_masters_are_refused_in_one_line(typed: str, message: str) -> None:
    with pytest.raises(UsageError, match=rf"^(--set |set=')dit=layerwise-offload,{typed}'?: {message}.*$"):
        ruled(f"dit=layerwise-offload,{typed}")


def test_only_files_with_the_very_weights_can_be_mapped() -> None:
    with pytest.raises(UsageError, match=r"can't be mapped.*leave mapped out\.$"):
        ruled("dit=layerwise-offload,mapped=1", parts=(CAST, TEXT))
    assert tiers(ruled("dit=layerwise-offload,mapped=0", parts=(CAST, TEXT)).components["transformer"]) == (0, 40, 0)


def test_other_strategies_have_no_tiers_of_blocks() -> None:
    with pytest.raises(UsageError, match="resident has no parameter 'pinned'"):
        parse_set("dit=resident,pinned=3")


def test_what_was_typed_is_taken_before_host_memory_is_given_out() -> None:
    sets = ("dit=layerwise-offload,pinned=20,mapped=20", "text_encoder=layerwise-offload")
    plan = ruled(*sets, ram_gib=30)
    block, text_block = 40 * GiB * 9 // 10 // 40, 10 * GiB * 9 // 10 // 24
    pinned = plan.components["text_encoder"].master.pinned
    assert pinned == (24 * GiB - 20 * block) // text_block < 24  # of 30 GiB, 24 may be pinned


def test_streamed_blocks_come_first_from_the_fastest_tier() -> None:
    fast = searched(20, "transformer=layerwise-offload,resident_blocks=8,pinned=32")
    slow = searched(20, "transformer=layerwise-offload,resident_blocks=8,mapped=32")
    assert tiers(fast.components["transformer"]) == (32, 8, 0)
    assert fast.predicted.step_s.mid < slow.predicted.step_s.mid
