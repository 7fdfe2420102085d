"""Streamed blocks' masters lie where host memory allows: split between tiers at any block, not in halves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roost.facts.request import Choices
from roost.plan import PlanDocument
from roost.planner.placements import Placement, place
from roost.planner.rules.case import Case
from roost.planner.rules.selectors import parse_set
from roost.planner.rules.table import apply_rules
from roost.planner.rules.typed import resolve
from roost.planner.search.candidates import Scope, candidate_placements
from roost.planner.search.columns import Aim
from roost.units import GiB
from searched_plans import PARTS, searched
from worlds import component, inventory, machine, profile, question

LINK_BOUND = 2e9  # copies of a pinned block take longer than its arithmetic


def with_host(ram_gib: float, *sets: str) -> PlanDocument:
    choices = Choices(sets=tuple(map(parse_set, sets)))
    made = question(inventory(*PARTS), machine(14, ram_gib=ram_gib), choices)
    made = replace(made, workload=replace(made.workload, frames=None, steps=40))
    return searched(14, link=LINK_BOUND, question=made, aim=Aim(certainty="likely"))


@pytest.mark.parametrize(
    "ram_gib", [10, 16, 22, *(pytest.param(each, marks=pytest.mark.slow) for each in (13, 19, 25))]
)
def test_scarce_host_memory_is_filled_to_two_blocks(ram_gib: int) -> None:
    plan = with_host(ram_gib, "text_encoder=snapshot-offload")
    master = plan.components["transformer"].master
    assert plan.fits
    assert master.mapped > 0
    block = PARTS[0].load_bytes / 40
    assert ram_gib * GiB - 2 * block < plan.budget.host_bytes <= ram_gib * GiB


@pytest.mark.slow  # test_more_memory asks the same of a whole plan
def test_more_host_memory_never_makes_a_plan_slower() -> None:
    plans = [with_host(ram_gib).predicted for ram_gib in range(8, 36, 2)]
    seconds = [each.load_s.mid + each.first_s.mid for each in plans]
    assert seconds == sorted(seconds, reverse=True)
    assert len({round(each) for each in seconds}) > 6  # and nearly every step makes it faster


def candidates(ram_gib: float, splits: int = 16, parts=PARTS) -> list[Placement]:
    choices = Choices()
    case = Case(
        components=parts,
        profile=profile(),
        machine=machine(12, ram_gib=ram_gib),
        batch=1,
        choices=choices,
        explicit=resolve(choices, parts),
    )
    ruled = place(case, apply_rules(case).decisions)[0]
    scope = Scope(passes=80, chunked=False, tilings=(False,), lingers=False, splits=splits)
    return list(candidate_placements(case, ruled, scope))[1:]


def test_candidates_are_the_same_whatever_host_memory_there_is() -> None:
    assert candidates(4) == candidates(40) == candidates(400)


def test_every_candidate_gives_each_block_one_master() -> None:
    for each in candidates(40):
        if each.streaming:
            tiers = each.streaming.pinned, each.streaming.pageable, each.streaming.mapped
            assert min(tiers) >= 0
            assert sum(tiers) == 40


def test_candidates_stay_few_enough_to_price() -> None:
    assert len(candidates(40, splits=2)) < len(candidates(40)) < 1300


def test_what_no_file_has_as_it_loads_is_split_between_memory_alone() -> None:
    cast = component("transformer", 28 * GiB, blocks=40, bytes_by_dtype={"F32": 56 * GiB})
    streamed = [each.streaming for each in candidates(40, parts=(cast, *PARTS[1:])) if each.streaming]
    assert {each.mapped for each in streamed} == {0}
    assert len({each.pinned for each in streamed if each.resident_blocks == 0}) == 17  # 16 parts of 40 blocks
