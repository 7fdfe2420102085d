"""Every strategy on ten families, with the real allocator: in order, as counted before, and quiet in steady steps."""

from __future__ import annotations

import pytest
from golden_counts import GOLDEN, differences, measured

from live_pipelines import STRATEGIES
from tiny_models import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_out_of_order_and_no_kernel_is_unseen(family: str) -> None:
    found = measured(family)
    assert set(found) == set(STRATEGIES)
    assert {strategy: each["violations"] for strategy, each in found.items() if each["violations"]} == {}
    assert sum(each["unseen"] for each in found.values()) == 0


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"nobody wrote {GOLDEN.name}: golden_counts.py --write")
@pytest.mark.parametrize("family", FAMILIES)
def test_calls_of_each_generation_are_as_committed(family: str) -> None:
    assert differences(family) == []


# A small call of Wan2.2 has a step for each expert: the second one comes in where others are in their steady state.
ONE_DENOISER = [each for each in FAMILIES if each != "wan2.2"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", ONE_DENOISER)
def test_in_steady_steps_roost_neither_waits_nor_allocates_nor_copies_pageable_memory(
    family: str, strategy: str
) -> None:
    assert measured(family)[strategy]["steady"] == []
