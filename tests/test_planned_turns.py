"""Turns of host memory as the planner counts them, on made-up traces."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from roost.planner.cost.estimate import predict
from roost.planner.cost.host_turns import Turns
from roost.planner.search.columns import Aim
from roost.planner.search.search import search
from traces import case_of, forecast, rates, trace, use
from worlds import component

GIB, MIB = 1024**3, 1024**2
NAMES = ("text_encoder", "transformer", "transformer_2")


def world(ram_gib: float, *, gives_back: bool = True, **changes: Any) -> tuple[Any, Any]:
    """An encoder of one use, two experts one after the other, each of 10 GiB, beside 6 GiB of VRAM."""
    parts = tuple(component(name, 10 * GIB, 4, index, **changes) for index, name in enumerate(NAMES))
    encoder, high, low = (use(each, 10**13, MIB) for each in parts)
    made = forecast(parts, trace((encoder, 1), (high, 20), (low, 20)), rates(), free_gib=6, ram_gib=ram_gib)
    made = replace(made, gives_back=gives_back)
    case, ruled = case_of(parts, made)
    return made, search(case, ruled, made, Aim())


def test_a_turn_is_from_a_first_use_to_the_next_and_masters_that_files_have_come_in_their_own() -> None:
    parts = [component(name, 10 * GIB, 4, index) for index, name in enumerate(NAMES)]
    encoder, high, low = (use(each, 10**9) for each in parts)
    turns = Turns.of(trace((encoder, 1), (high, 2), (low, 2), (high, 1)), NAMES)
    assert turns.used == {"text_encoder": (0, 0), "transformer": (1, 2), "transformer_2": (2, 2)}
    assert turns.span(parts[2]) == (2, 2)
    assert turns.span(replace(parts[2], bytes_by_dtype={"F32": 20 * GIB})) == (2, 2)  # cast as it loads
    assert turns.span(replace(parts[2], tensors=None)) == (0, 2)
    changed = Turns.of(trace((encoder, 1), (high, 2), (replace(low, recast_bytes=1), 2)), NAMES)
    assert changed.span(replace(parts[2], bytes_by_dtype={"F32": 20 * GIB})) == (0, 2)  # and again by the pipeline


def test_what_is_given_back_is_counted_and_more_host_memory_is_never_slower() -> None:
    found = {gib: world(gib) for gib in (6, 12, 24, 48)}
    seconds = [result.chosen.seconds for _, result in found.values()]
    assert all(more <= less * 1.02 for less, more in pairwise(seconds))
    assert found[12][1].chosen.seconds < 0.8 * world(12, gives_back=False)[1].chosen.seconds
    for gib, (made, result) in found.items():
        placements = tuple(each.placement for each in result.chosen.options)
        turns = made.host_turns(placements)
        assert bool(turns) == (gib < 48)  # all fit at once
        assert result.chosen.host_bytes <= made.machine.host.available_bytes
        assert all(each.host_bytes <= made.machine.host.available_bytes for each in turns)
        assert predict(made, placements).host_bytes == max((each.host_bytes for each in turns), default=30 * GIB)


@pytest.mark.parametrize(
    "stored", [{}, {"bytes": 20 * GIB, "bytes_by_dtype": {"F32": 20 * GIB}}], ids=["as is", "cast"]
)
def test_reading_late_masters_moves_from_the_load_to_their_stage(stored: dict[str, Any]) -> None:
    made, result = world(12, **stored)
    placements = tuple(each.placement for each in result.chosen.options)
    late, whole = predict(made, placements), predict(replace(made, gives_back=False), placements)
    moved_s = sum(made.late_s(placements).values())
    assert moved_s > 0
    assert late.load_s.mid == pytest.approx(whole.load_s.mid - moved_s)
    assert late.total_s.mid == pytest.approx(whole.total_s.mid, rel=1e-3)
    assert late.step_s.mid == pytest.approx(whole.step_s.mid, rel=1e-3)


def test_nothing_is_given_back_that_a_later_generation_needs() -> None:
    made, _ = world(12)
    assert made.turns is not None
    assert replace(made, generations=2).turns is None
    assert replace(made, machine=replace(made.machine, gpu=replace(made.machine.gpu, unified=True))).turns is None
