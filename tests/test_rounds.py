"""Blocks that run several times in a call: held for a stage where they are most of a component, and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roost.facts.model import Stack
from roost.planner.search.columns import Aim
from roost.planner.search.search import search
from roost.units import GiB
from traces import case_of, forecast, trace, use
from worlds import component

TERA = 10**12


@pytest.mark.slow
def test_a_small_stack_that_runs_in_rounds_keeps_no_large_one_from_streaming() -> None:
    """A motion encoder's blocks run for each frame; the denoiser's own are held for a stage only where most do."""
    stacks = (
        Stack(name="motion", block_bytes=(GiB // 64,) * 4),
        Stack(name="blocks", block_bytes=(GiB // 2,) * 40),
    )
    part = component("transformer", 21 * GiB, blocks=44, stacks=stacks, units=stacks)
    once = use(part, 60 * TERA, GiB)
    in_rounds = replace(
        once, blocks=tuple(replace(each, calls=8) if each.name.startswith("motion") else each for each in once.blocks)
    )
    for seen in (once, in_rounds):
        made = forecast((part,), trace((seen, 40), steps=40), free_gib=8)
        found = search(*case_of((part,), made), made, Aim())
        assert found.chosen is not None
        streaming = found.chosen.options[0].placement.streaming
        assert streaming is not None
        assert not streaming.hold
