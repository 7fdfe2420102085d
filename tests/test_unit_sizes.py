"""What belongs to which unit, and how much of a component stays as memory gets short: without a device."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from plans import component_plan
from roost.blocks import TRUNK
from roost.plan.fields import StackRecord
from roost.residency.weights.census import take_census
from roost.residency.weights.rungs import Rungs

BLOCKS = ("blocks.0", "blocks.1")


class Stacked(nn.Module):
    """Two blocks of one weight each, and a trunk."""

    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(blocks))
        self.out = nn.Linear(4, 4, bias=False)


def sharing(first: slice, second: slice) -> Stacked:
    """The blocks' weights are these elements of one piece of memory."""
    made, memory = Stacked(), torch.arange(32.0)
    for block, part in zip(made.blocks, (first, second), strict=True):
        block.weight = nn.Parameter(memory[part].view(4, 4))
    return made


def names(module: nn.Module) -> dict[str, list[str]]:
    return {
        unit: [name for entry in entries for name in entry.names]
        for unit, entries in take_census(module, BLOCKS).items()
    }


OWN = {TRUNK: ["out.weight"], "blocks.0": ["blocks.0.weight"], "blocks.1": ["blocks.1.weight"]}
ALL_TRUNK = ["blocks.0.weight", "blocks.1.weight", "out.weight"]


def test_memory_that_overlaps_by_a_part_belongs_to_the_trunk() -> None:
    found = names(sharing(slice(0, 16), slice(8, 24)))
    assert sorted(found[TRUNK]) == ALL_TRUNK
    assert found["blocks.0"] == found["blocks.1"] == []


def test_memory_inside_that_of_another_unit_belongs_to_the_trunk() -> None:
    made = sharing(slice(0, 16), slice(16, 32))
    made.blocks[1].register_buffer("mask", made.blocks[0].weight.detach().view(-1)[4:8])
    found = names(made)
    assert sorted(found[TRUNK]) == ["blocks.0.weight", "blocks.1.mask", "out.weight"]
    assert found["blocks.1"] == ["blocks.1.weight"]


def test_a_weight_that_two_blocks_have_belongs_to_the_trunk_under_both_names() -> None:
    made = Stacked()
    made.blocks[1].weight = made.blocks[0].weight
    found = names(made)
    assert sorted(found[TRUNK]) == ALL_TRUNK
    assert found["blocks.0"] == found["blocks.1"] == []


def test_neighbours_in_memory_that_do_not_overlap_stay_in_their_blocks() -> None:
    assert names(sharing(slice(0, 16), slice(16, 32))) == OWN


def test_what_overlaps_inside_one_block_stays_there() -> None:
    made = Stacked()
    made.blocks[0].register_buffer("mask", made.blocks[0].weight.detach().view(-1)[4:8])
    found = names(made)
    assert found["blocks.0"] == ["blocks.0.weight", "blocks.0.mask"]
    assert found[TRUNK] == ["out.weight"]


def rungs(blocks: int, resident_blocks: int, prefetch: int = 1) -> Rungs:
    plan = component_plan("transformer", Stacked(blocks), strategy="resident")
    layerwise = {
        "strategy": "layerwise-offload",
        "stacks": [StackRecord(name="blocks", count=blocks, bytes=100 * blocks)],
        "resident_blocks": resident_blocks,
        "prefetch": prefetch,
    }
    return Rungs(plan.model_copy(update=layerwise))


def descent(made: Rungs, block_bytes: list[int]) -> list[tuple[int, int]]:
    """Resident blocks and slots after each step down, to the last."""
    seen = []
    while made.step_down(block_bytes) is not None:
        seen.append((made.resident_blocks, made.slots))
    return seen


def test_resident_blocks_are_given_up_one_then_two_then_four_at_a_time_and_then_slots() -> None:
    assert descent(rungs(20, 12), [100] * 20) == [(11, 2), (9, 2), (5, 2), (0, 2), (0, 1)]


def test_a_step_down_that_saves_nothing_is_taken_with_the_next_one() -> None:
    """All resident needs no slots: without the first block, its slot takes as much."""
    made = rungs(8, 8)
    before = made.most_bytes([100] * 8)
    assert made.step_down([100] * 8) == "5 resident blocks instead of 8"
    assert made.most_bytes([100] * 8) == before - 100


@pytest.mark.parametrize("resident_blocks", range(9))
def test_every_step_down_saves_memory_and_lowered_says_where_it_ended(resident_blocks: int) -> None:
    made = rungs(8, resident_blocks, prefetch=2)
    taken = [made.most_bytes([100] * 8)]
    while made.step_down([100] * 8) is not None:
        taken.append(made.most_bytes([100] * 8))
        assert made.lowered() == (made.resident_blocks, made.slots)
    assert all(later < earlier for earlier, later in itertools.pairwise(taken))
    assert (made.resident_blocks, made.slots) == (0, 1)


def test_blocks_stay_as_far_as_they_fit_to_the_byte_and_come_back_with_the_memory() -> None:
    made, sizes = rungs(8, 6), [100] * 8
    fitting = {made.most_bytes(sizes): 6, made.most_bytes(sizes) - 1: 5, 500: 3, 499: 2, 0: 0}
    for free_bytes, resident_blocks in [*fitting.items(), *reversed(fitting.items())]:
        made.fit(sizes, free_bytes)
        assert made.resident_blocks == resident_blocks
        assert made.lowered() is None  # for now, and not for good
