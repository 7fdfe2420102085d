"""The simulated ring of slots: an oracle that shares no code with it, the bound it reaches, and one more resident."""

from __future__ import annotations

from itertools import chain, cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.blocks import resident_indices
from roost.facts.stage import StageKey
from roost.planner.cost.simulator import Schedule, UseCost, simulate
from test_timeline import SECONDS, TINY, schedule, use, weights


def ring_oracle(sizes: list[int], seconds: list[float], kept: frozenset[int], slots: int, passes: int) -> float:
    """The layerwise protocol as a recurrence over the copies in their order of first use; no slots, no queues."""
    order = [block for block in range(len(sizes)) if block not in kept]
    fixed = len(order) <= slots
    upcoming = chain(range(len(sizes)), () if fixed else cycle(order))
    copied = 1.0  # the trunk's end, then that of every copy after it
    ready_kept: dict[int, float] = {}
    copies: list[float] = []  # end of the n-th streamed copy
    used: list[float] = []  # end of the n-th streamed block's compute

    def copy_next() -> None:
        nonlocal copied
        block, m = next(upcoming), len(copies)
        freed = used[m - slots] if block not in kept and m >= slots else 0.0
        copied = max(copied, freed) + sizes[block]
        if block in kept:
            ready_kept[block] = copied
        else:
            copies.append(copied)

    compute, n = 0.0, 0
    for _ in range(passes):
        compute = max(compute, 1.0) + 0.25
        for block, block_s in enumerate(seconds):
            if block in kept:
                while block not in ready_kept:
                    copy_next()
                compute = max(compute, ready_kept[block]) + block_s
            else:
                place = n % len(order) if fixed else n
                while len(copies) <= place:
                    copy_next()
                compute = max(compute, copies[place]) + block_s
                used.append(compute)
                n += 1
        compute += 0.25
    while not fixed and len(copies) < n + slots:
        copy_next()
    return max(compute, copied)


@given(
    st.lists(st.tuples(st.integers(1, 9), SECONDS), min_size=1, max_size=8),
    st.frozensets(st.integers(0, 7)),
    st.integers(0, 7),
    st.integers(1, 4),
    st.integers(1, 4),
)
@settings(max_examples=200, deadline=None)
def test_one_more_resident_block_never_takes_longer(blocks, kept, another, slots, passes) -> None:
    """Up to the last kernel: which block is fetched in vain for a pass that never comes depends on who is resident."""
    sizes, seconds = [size for size, _ in blocks], [second for _, second in blocks]
    ends = []
    for resident in (kept, kept | {another}):
        made = weights("a", sizes, "layerwise-offload", resident=resident & set(range(len(sizes))), slots=slots)
        timeline = simulate(schedule([made], [use("a", seconds)], [(0, passes)]), record=True, exact=True)
        ends.append(max(event.end_s for event in timeline.events if event.lane == "compute"))
    assert ends[1] <= ends[0] + TINY


@given(
    st.lists(st.tuples(st.integers(1, 9), SECONDS), min_size=1, max_size=8),
    st.integers(0, 8),
    st.sampled_from(["strided", "leading"]),
    st.integers(1, 4),
    st.integers(1, 6),
)
@settings(max_examples=300, deadline=None)
def test_layerwise_equals_the_recurrence(blocks, resident, policy, slots, passes) -> None:
    sizes, seconds = [size for size, _ in blocks], [second for _, second in blocks]
    kept = resident_indices([len(sizes)], resident, policy)
    streamed = len(sizes) - len(kept)
    slots = min(slots, max(1, streamed))
    world = schedule(
        [weights("a", sizes, "layerwise-offload", resident=kept, slots=slots)], [use("a", seconds)], [(0, passes)]
    )
    assert simulate(world).seconds == pytest.approx(ring_oracle(sizes, seconds, kept, slots, passes))


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("resident", [0, 8, 20, 32])
def test_two_slots_and_spread_residents_reach_the_bound_on_equal_blocks(ratio: float, resident: int) -> None:
    world = one_stack(ratio, resident, "strided", slots=2)
    assert steady_s(world) == pytest.approx(bound_s(world), rel=0.005)


def test_a_leading_prefix_falls_short_of_the_bound_when_copies_dominate() -> None:
    reached = []
    for ratio in (1.5, 2.0, 3.0):
        world = one_stack(ratio, 20, "leading", slots=2)
        reached.append(bound_s(world) / steady_s(world))
    assert all(0.6 < each < 0.95 for each in reached)


def test_one_slot_cannot_overlap() -> None:
    world = one_stack(1.0, 0, "strided", slots=1)
    assert bound_s(world) / steady_s(world) == pytest.approx(0.5, rel=0.01)


def one_stack(copy_per_compute: float, resident: int, policy: str, slots: int) -> Schedule:
    kept = resident_indices([40], resident, policy)
    made = weights("a", [1] * 40, "layerwise-offload", 1 / copy_per_compute, resident=kept, slots=slots)
    busy = UseCost(
        component="a", stage=StageKey("a", "denoise"), before_s=0, blocks=tuple((i, 1.0) for i in range(40)), after_s=0,
        activation_bytes=0,
    )  # fmt: skip
    return schedule([made], [busy], [(0, 30)])


def steady_s(world: Schedule) -> float:
    return simulate(world).stages[0][StageKey("a", "denoise")].steady.seconds


def bound_s(world: Schedule) -> float:
    made = world.weights["a"]
    streamed_s = sum(made.block_s[block] for block in range(40) if block not in made.resident)
    return max(world.uses[0].compute_s, streamed_s)
