"""Stacks, what streams of them, and which blocks stay: found from tensor names and sizes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest

from roost import blocks
from roost.blocks import (
    _MAX_LIST_DEPTH,
    _members_by_block,
    block_names,
    leaf_stacks,
    outermost_stacks,
    resident_indices,
    stacks_and_units,
    streamed_stacks,
)
from roost.facts.model import Stack
from roost.facts.resident_policy import blocks_of_stacks, policy_of
from roost.planner.buffers import in_order_of_use
from traces import trace, use
from worlds import component, inventory


def _blocks(prefix: str, count: int, size: int, parts: Iterable[str] = ("attn.weight", "ff.weight")) -> dict[str, int]:
    return {f"{prefix}.{index}.{part}": size for index in range(count) for part in parts}


def test_flux_has_two_stacks_and_its_trunk_is_in_neither() -> None:
    sizes = (
        _blocks("transformer_blocks", 19, 30) | _blocks("single_transformer_blocks", 38, 10) | {"x_embedder.weight": 7}
    )
    assert [(stack.name, stack.count, stack.bytes) for stack in outermost_stacks(sizes)] == [
        ("single_transformer_blocks", 38, 760),
        ("transformer_blocks", 19, 1140),
    ]


def test_unequal_blocks_keep_their_own_sizes_in_order() -> None:
    sizes = _blocks("blocks", 12, 5) | {"blocks.0.attn.bias": 3, "blocks.11.ff.weight": 1}
    (stack,) = outermost_stacks(sizes)
    assert stack.block_bytes == (13, *[10] * 10, 6)


def test_umt5_blocks_lie_below_the_encoder_and_their_layers_are_no_stack_of_their_own() -> None:
    parts = ("layer.0.SelfAttention.q.weight", "layer.1.DenseReluDense.wo.weight")
    sizes = _blocks("encoder.block", 24, 4, parts) | {"shared.weight": 100, "encoder.final_layer_norm.weight": 1}
    assert outermost_stacks(sizes) == (Stack(name="encoder.block", block_bytes=(8,) * 24),)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["proj.0.weight", "proj.1.weight"], id="plain layers"),
        pytest.param(["blocks.0.a.w", "blocks.2.a.w"], id="a gap"),
        pytest.param(["blocks.1.a.w", "blocks.2.a.w"], id="not from zero"),
        pytest.param(["0.a.w", "1.a.w"], id="no name"),
        pytest.param(["blocks.0", "blocks.1"], id="parameters"),
    ],
)
def test_what_is_no_list_of_blocks_is_no_stack(names: list[str]) -> None:
    assert outermost_stacks(dict.fromkeys(names, 1)) == ()


def test_a_list_of_lists_is_entered() -> None:
    sizes = _blocks("stages.0", 3, 1) | _blocks("stages.1", 2, 1)
    assert [(stack.name, stack.count) for stack in outermost_stacks(sizes)] == [("stages.0", 3), ("stages.1", 2)]


SDXL_DOWN = _blocks("down_blocks.1.attentions.0.transformer_blocks", 2, 10) | _blocks("down_blocks.0.resnets", 2, 10)
SDXL_DOWN |= _blocks("down_blocks.1.attentions.1.transformer_blocks", 2, 10)


def test_an_oversized_block_splits_its_stack_into_inner_stacks() -> None:
    stacks, units = stacks_and_units(SDXL_DOWN, limit_bytes=50)
    assert [(stack.name, stack.block_bytes) for stack in stacks] == [("down_blocks", (40, 80))]
    assert [(unit.name, unit.count) for unit in units] == [
        ("down_blocks.0.resnets", 2),
        ("down_blocks.1.attentions", 2),
    ]


def test_splitting_goes_on_until_blocks_are_small_enough() -> None:
    assert [unit.name for unit in streamed_stacks(SDXL_DOWN, limit_bytes=30)] == [
        "down_blocks.0.resnets",
        "down_blocks.1.attentions.0.transformer_blocks",
        "down_blocks.1.attentions.1.transformer_blocks",
    ]


def test_blocks_below_the_limit_stay_whole() -> None:
    assert streamed_stacks(SDXL_DOWN, limit_bytes=80) == outermost_stacks(SDXL_DOWN)


def test_a_block_that_is_mostly_outside_inner_stacks_stays_whole() -> None:
    sizes = _blocks("blocks", 2, 100) | _blocks("blocks.0.experts", 2, 10)
    assert [unit.name for unit in streamed_stacks(sizes, limit_bytes=50)] == ["blocks"]


def test_stacks_are_sorted_and_independent_of_the_order_of_names() -> None:
    sizes = _blocks("b", 3, 1) | _blocks("a", 2, 1)
    assert outermost_stacks(dict(reversed(sizes.items()))) == outermost_stacks(sizes)
    assert [stack.name for stack in outermost_stacks(sizes)] == ["a", "b"]


@pytest.mark.parametrize(
    "name", ["a" + ".0" * 100_000 + ".w.w", "a." + "9" * 10_000 + ".w.w", "a.\u0663.w.w", ".0.", ""]
)
def test_hostile_names_cost_few_searches_and_no_crash(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []

    def members_by_block(names: Iterable[str], start: int) -> dict[str, list[str]]:
        searched.extend(names := list(names))
        return _members_by_block(names, start)

    monkeypatch.setattr(blocks, "_members_by_block", members_by_block)
    outermost_stacks({name: 1})
    assert 1 <= len(searched) <= 1 + _MAX_LIST_DEPTH


def test_block_names_count_stack_after_stack() -> None:
    stacks = (Stack(name="x", block_bytes=(1, 1)), Stack(name="y.z", block_bytes=(1,)))
    assert block_names(stacks) == ("x.0", "x.1", "y.z.0")


@pytest.mark.parametrize("count", [1, 2, 7, 40, 57])
def test_resident_blocks_are_spread_evenly(count: int) -> None:
    for kept in range(count + 1):
        chosen = sorted(resident_indices([count], kept, "strided"))
        assert len(chosen) == kept
        gaps = [after - before for before, after in pairwise(chosen)]
        assert not gaps or max(gaps) - min(gaps) <= 1


def test_leading_residents_come_first_and_more_than_all_is_all() -> None:
    assert resident_indices([3, 2], 2, "leading") == {0, 1}
    assert resident_indices([3], 9, "strided") == {0, 1, 2}


def test_each_stack_keeps_its_own_number_and_fewer_of_those_when_fewer_may_stay() -> None:
    kept = resident_indices([4, 6], 5, "2+3")
    assert kept == {1, 3, 5, 7, 9}
    assert [len(resident_indices([4, 6], count, "2+3")) for count in range(6)] == [0, 1, 2, 3, 4, 5]
    assert resident_indices([4, 6], 2, "2+3") < kept
    assert resident_indices([4, 6], 4, "4+0") == {0, 1, 2, 3}
    assert policy_of(blocks_of_stacks("2+3")) == "2+3"


def test_a_plan_is_made_for_the_order_in_which_blocks_run() -> None:
    """As in a UNet: of each level a convolution and a transformer take turns; elsewhere stacks follow one another."""
    stacks = (Stack(name="down.attentions", block_bytes=(2,) * 2), Stack(name="down.resnets", block_bytes=(1,) * 2))
    part = component("unet", 10, blocks=4, stacks=stacks, units=stacks)
    straight = use(part, 4)
    mixed = replace(straight, blocks=tuple(straight.blocks[index] for index in (2, 0, 3, 1)))
    found = {}
    for name, made in {"straight": straight, "mixed": mixed}.items():
        found[name] = in_order_of_use(inventory(part), trace((made, 1))).components[0]
    assert found["straight"].use_order == ()
    assert [unit.name for unit in found["mixed"].units] == ["down.resnets", "down.attentions"]
    assert found["mixed"].use_order == (0, 2, 1, 3)


# Below the blocks.


def _leaves_of(sizes: dict[str, int]) -> tuple[Stack, ...]:
    return leaf_stacks(sizes, streamed_stacks(sizes))


def test_leaves_are_the_layers_that_hold_tensors_and_no_other_module() -> None:
    sizes = _blocks("blocks", 3, 512, ("attn.to_q.weight", "attn.to_q.bias", "attn.to_out.0.weight", "ff.net.2.weight"))
    (stack,) = _leaves_of(sizes | {"blocks.0.attn.norm_q.weight": 1, "blocks.1.table": 2, "proj.weight": 99})
    assert stack.leaves == ("attn.to_q", "attn.to_out.0", "ff.net.2")
    assert stack.block_bytes == (1024, 512, 512) * 3
    assert block_names((stack,))[2:5] == ("blocks.0.ff.net.2", "blocks.1.attn.to_q", "blocks.1.attn.to_out.0")


def test_a_layer_that_some_block_lacks_is_the_trunk_s() -> None:
    sizes = _blocks("blocks", 4, 512, ("q.weight", "k.weight")) | {"blocks.0.bias_table.weight": 100}
    (stack,) = _leaves_of(sizes)
    assert stack.leaves == ("q", "k")


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(_blocks("blocks", 4, 512, ("norm.weight", "table")), id="a single layer"),
        pytest.param(
            _blocks("blocks", 4, 512, ("q.weight", "k.weight")) | _blocks("blocks", 4, 2048, ("table",)),
            id="most of it in no layer",
        ),
        pytest.param({f"blocks.{n}.q{n}.weight": 512 for n in range(4)}, id="nothing that all have"),
        pytest.param({"proj.weight": 512}, id="no blocks"),
    ],
)
def test_blocks_whose_layers_can_t_be_told_apart_have_no_leaves(sizes: dict[str, int]) -> None:
    assert _leaves_of(sizes) == ()


def test_names_that_are_no_block_s_are_the_list_s_own() -> None:
    sizes = _blocks("blocks", 3, 512, ("q.weight", "k.weight"))
    odd = {"blocks.scale": 1, "blocks.x.q.weight": 2, "blocks.00.q.weight": 3, "blocks.1234567890.q.weight": 4}
    assert _leaves_of(sizes | odd) == _leaves_of(sizes)


def test_of_leaves_takes_and_orders_the_sizes_of_every_block() -> None:
    stack = Stack(name="b", block_bytes=(1, 2, 3, 4, 5, 6), leaves=("x", "y", "z"), kept_bytes=(0, 1, 0, 0, 2, 0))
    taken = stack.of_leaves(["z", "y"])
    assert (taken.block_bytes, taken.kept_bytes, taken.extra_bytes) == ((3, 2, 6, 5), (0, 1, 0, 2), ())
    assert block_names((taken,)) == ("b.0.z", "b.0.y", "b.1.z", "b.1.y")
