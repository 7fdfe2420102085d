"""What a simulated stage is said to take: sums over its uses, and who has left by then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roost.facts.stage import StageKey
from roost.planner.cost.simulator import simulate
from test_timeline import schedule, use, weights


def test_what_is_not_needed_again_has_left_the_next_stage_though_there_was_room() -> None:
    first, second = weights("a", [5, 5], "snapshot-offload"), weights("b", [3], "snapshot-offload")
    made = schedule([first, second], [use("a", [1.0, 1.0]), use("b", [1.0])], [(0, 1), (1, 1)])
    stages = simulate(made).stages[0]
    assert stages[StageKey("a", "denoise")].weights_bytes == first.total_bytes
    assert stages[StageKey("b", "denoise")].weights_bytes == second.total_bytes


def test_a_stage_s_figures_are_the_sums_over_its_uses_and_its_largest_bytes() -> None:
    moved = weights("a", [4, 4], "component-offload")
    made = schedule([moved, weights("b", [1], "resident")], [use("a", [1.0, 1.0]), use("b", [1.0])], [(0, 1), (1, 1)])
    stage = simulate(made).stages[0][StageKey("a", "denoise")]
    assert stage.h2d_bytes == moved.total_bytes
    assert stage.stall_s == 9  # nothing computes before all bytes are there; on their way back the next stage waits
    assert stage.uses == 1
    before = replace(stage)
    stage.add(replace(before, weights_bytes=1, peak_bytes=1), 2)
    assert (stage.stall_s, stage.h2d_bytes, stage.uses) == (3 * before.stall_s, 3 * before.h2d_bytes, 3)
    assert (stage.weights_bytes, stage.peak_bytes) == (before.weights_bytes, before.peak_bytes)


def test_passes_that_only_look_alike_are_not_skipped() -> None:
    """The other component comes in once; the passes after it are not as long as the first."""
    streamed, other = weights("a", [5, 5, 1, 9], "layerwise-offload"), weights("b", [1], "snapshot-offload")
    uses = [use("a", [3.0, 1.0, 3.0, 3.0]), use("b", [1.0])]
    made = schedule([streamed, other], uses, [(0, 1), (1, 1)] * 8)
    skipped, every = simulate(made), simulate(made, exact=True, record=True)
    assert skipped.seconds == pytest.approx(every.seconds)
    assert skipped.simulated_uses < every.simulated_uses == 16
    copied = sum(each.bytes for each in every.events if each.lane == "copy")
    assert copied == sum(stage.h2d_bytes for stage in every.stages[0].values()) > 0
