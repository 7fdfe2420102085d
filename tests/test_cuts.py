"""Stacks cut short for a heat: which blocks stay, whose plans keep their proportions, and the plan of what is left."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.facts import Component, Stack
from roost.plan import PlanDocument
from roost.plan.fields import Masters
from roost.tune.cuts import choose_cut, cut_of, cut_plan, keeps_proportions, kept_places
from searched_plans import searched
from worlds import component


def denoiser(*stacks: tuple[str, tuple[int, ...]], name: str = "transformer") -> Component:
    """A component of these stacks and 1000 bytes beside them."""
    units = tuple(Stack(name=stack, block_bytes=sizes) for stack, sizes in stacks)
    return component(name, 1000 + sum(each.bytes for each in units), stacks=units, units=units)


def streaming(resident: int, *, prefetch: int = 1, policy: str = "strided") -> PlanDocument:
    """Of a made-up video model of 40 blocks."""
    return searched(
        20, f"transformer=layerwise-offload,resident_blocks={resident},resident_policy={policy},prefetch={prefetch}"
    )


def valid(plan: PlanDocument) -> PlanDocument:
    """The plan as a child reads it."""
    return PlanDocument.model_validate_json(plan.model_dump_json(by_alias=True))


PLAN = streaming(20)
FORTY = component("transformer", 28 * 1024**3, blocks=40)


def test_of_forty_equal_blocks_the_first_five_and_the_last_five_stay() -> None:
    assert kept_places((7,) * 40, 4) == (0, 1, 2, 3, 4, 35, 36, 37, 38, 39)


def test_a_block_that_is_like_no_neighbour_stays() -> None:
    assert kept_places((13, *(10,) * 10, 6), 4) == (0, 1, 2, 10, 11)
    assert kept_places((1, 2) * 8, 4) == tuple(range(16))


def test_both_stacks_of_flux_are_cut_each_by_itself() -> None:
    flux = denoiser(("single_transformer_blocks", (10,) * 38), ("transformer_blocks", (30,) * 19))
    cut = cut_of([flux], 4)
    kept = {name: stack.kept for name, stack in cut.stacks["transformer"].items()}
    assert (len(kept["transformer_blocks"]), len(kept["single_transformer_blocks"])) == (5, 10)
    assert str(cut) == "15 of 57 blocks"
    assert cut.scale == pytest.approx((380 + 570) / (100 + 150))


def test_both_experts_are_cut_and_encoders_are_not() -> None:
    parts = (
        component("transformer", 4000, blocks=40),
        component("transformer_2", 4000, blocks=40, position=1),
        component("text_encoder", 4000, blocks=24, position=2),
    )
    names = ("a", "b", "c")
    plan = searched(20, "all=resident", parts=parts[:1])
    two = plan.model_copy(
        update={"components": dict.fromkeys(("transformer", "transformer_2"), plan.components["transformer"])}
    )
    found = choose_cut(parts, dict.fromkeys(names, two))
    assert found is not None
    assert set(found.cut.stacks) == {"transformer", "transformer_2"}
    assert str(found.cut) == "20 of 80 blocks"
    assert found.names == set(names)


def test_a_model_without_long_stacks_has_no_heat() -> None:
    unet = denoiser(("down_blocks", (1, 2, 3)), ("up_blocks", (3, 2, 1)), name="unet")
    plan = searched(20, "all=resident", parts=(component("unet", 4000, blocks=3),))
    assert choose_cut([unet], dict.fromkeys("abcd", plan)) is None
    assert choose_cut([component("vae", 4000, blocks=40)], dict.fromkeys("abcd", plan)) is None


def test_two_candidates_need_no_heat() -> None:
    plans = {"a": streaming(0), "b": streaming(20)}
    assert choose_cut([FORTY], plans) is None
    assert choose_cut([FORTY], {**plans, "c": streaming(10)}) is not None


def test_the_least_is_run_that_says_something_of_most_plans() -> None:
    """A plan that streams few blocks streams none of a quarter of them; one of many is no reason to run more."""
    few = {"k=0": streaming(0), "k=20": streaming(20), "k=30": streaming(30), "k=35": streaming(35)}
    found = choose_cut([FORTY], few)
    assert found is not None
    assert found.cut.blocks == 10
    assert found.names == set(few) - {"k=35"}


def test_as_large_a_share_stays_resident_and_the_slots_stay_busy() -> None:
    cut = cut_of([FORTY], 4)
    left = {k: cut_plan(streaming(k), cut).components["transformer"] for k in (0, 10, 20, 30)}
    assert {k: each.resident_blocks for k, each in left.items()} == {0: 0, 10: 2, 20: 5, 30: 7}
    assert {each.slots for each in left.values()} == {2}
    assert {sum(stack.count for stack in each.stacks) for each in left.values()} == {10}


def test_what_is_not_cut_stays_as_it_is_planned() -> None:
    plan = streaming(20)
    cut = cut_plan(plan, cut_of([FORTY], 4))
    others = {name: each for name, each in plan.components.items() if name != "transformer"}
    assert {name: each for name, each in cut.components.items() if name != "transformer"} == others
    assert cut.load_order == plan.load_order
    whole, left = plan.components["transformer"], cut.components["transformer"]
    assert left.load_bytes == whole.trunk_bytes + whole.stacks[0].bytes // 4


def test_masters_in_files_do_not_survive_a_cut() -> None:
    plan = streaming(20)
    whole = plan.components["transformer"]
    mapped = whole.model_copy(update={"master": Masters(pinned=10, pageable=10, mapped=20)})
    cut = cut_of([FORTY], 4)
    assert keeps_proportions(plan, cut)
    assert not keeps_proportions(plan.model_copy(update={"components": {"transformer": mapped}}), cut)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=60), st.integers(2, 4))
def test_every_block_that_goes_has_an_equal_one_that_stays(sizes: list[int], divisor: int) -> None:
    kept = kept_places(sizes, divisor)
    assert kept[0] == 0
    assert kept[-1] == len(sizes) - 1
    assert all(one < other for one, other in pairwise(kept))
    runs = [key for key, _ in groupby(sizes)]
    assert [key for key, _ in groupby(sizes[place] for place in kept)] == runs
    for place in set(range(len(sizes))) - set(kept):
        before, after = max(p for p in kept if p < place), min(p for p in kept if p > place)
        assert set(sizes[before : after + 1]) == {sizes[place]}


@given(st.data())
def test_a_cut_plan_is_a_valid_plan_whose_slots_and_masters_suit_its_blocks(data: st.DataObject) -> None:
    blocks = data.draw(st.integers(2, 80))
    resident = data.draw(st.integers(0, blocks))
    slots = min(data.draw(st.integers(1, 4)) + 1, blocks - resident)
    pinned = data.draw(st.integers(0, blocks))
    whole = PLAN.components["transformer"].model_copy(
        update={
            "stacks": [
                PLAN.components["transformer"].stacks[0].model_copy(update={"count": blocks, "bytes": 10 * blocks})
            ],
            "load_bytes": 10 * blocks + 7,
            "trunk_bytes": 7,
            "resident_blocks": resident,
            "slots": slots,
            "master": Masters(pinned=pinned, pageable=blocks - pinned, mapped=0),
        }
    )
    cut = cut_of([denoiser(("blocks", (10,) * blocks))], data.draw(st.integers(2, 4)))
    plan = PLAN.model_copy(update={"components": {**PLAN.components, "transformer": whole}})
    left = valid(cut_plan(plan, cut)).components["transformer"]
    count, streamed = left.stacks[0].count, left.stacks[0].count - left.resident_blocks
    assert left.load_bytes == 10 * count + 7
    assert left.slots == min(slots, streamed)
    assert sum(left.master.model_dump().values()) == count
    if keeps_proportions(plan, cut):
        assert (streamed > left.slots) == (blocks - resident > slots)
