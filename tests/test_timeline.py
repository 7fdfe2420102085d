"""The simulated timeline on random worlds: bounds, monotony, and oracles that share no code with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.blocks import resident_indices
from roost.facts.stage import StageKey
from roost.planner.cost.simulator import MovedWeights, Schedule, UseCost, repeated_patterns, simulate

TINY = 1e-9
SECONDS = st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0])
MOVING = ("component-offload", "snapshot-offload", "layerwise-offload")


def weights(name: str, sizes: list[int], strategy: str, link: float = 1.0, **changes: object) -> MovedWeights:
    """A component whose copies take a second for each ``link`` bytes; by default it has two slots."""
    made = MovedWeights(
        component=name,
        strategy=strategy,  # type: ignore[arg-type]
        trunk_bytes=1,
        block_bytes=tuple(sizes),
        trunk_s=1 / link,
        block_s=tuple(size / link for size in sizes),
        slots=2 if strategy == "layerwise-offload" else 0,
        back_s=(1 + sum(sizes)) / link if strategy == "component-offload" else 0.0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def use(name: str, seconds: list[float], activations: int = 0) -> UseCost:
    return UseCost(
        component=name,
        stage=StageKey(name, "denoise"),
        before_s=0.25,
        blocks=tuple(enumerate(seconds)),
        after_s=0.25,
        activation_bytes=activations,
    )


def schedule(components: list[MovedWeights], uses: list[UseCost], sequence: list[tuple[int, int]], budget: int = 10**9):
    return Schedule(
        weights={each.component: each for each in components},
        uses=tuple(uses),
        sequence=tuple(sequence),
        budget_bytes=budget,
    )


@st.composite
def worlds(draw: st.DrawFn, link: float = 1.0) -> Schedule:
    components, uses = [], []
    for name in "abc"[: draw(st.integers(1, 3))]:
        count = draw(st.integers(1, 7))
        sizes = draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
        strategy = draw(st.sampled_from(("resident", *MOVING)))
        made = weights(name, sizes, strategy, link, linger=draw(st.booleans()))
        if strategy == "layerwise-offload":
            kept = resident_indices([count], draw(st.integers(0, count)), draw(st.sampled_from(["strided", "leading"])))
            made = replace(made, resident=kept, slots=draw(st.integers(1, 3)), hold=draw(st.booleans()), linger=False)
        components.append(made)
        for _ in range(draw(st.integers(1, 2))):
            seconds = draw(st.lists(SECONDS, min_size=count, max_size=count))
            uses.append(use(name, seconds, draw(st.integers(0, 5))))
    index = st.integers(0, len(uses) - 1)
    sequence = draw(st.lists(st.tuples(index, st.integers(1, 9)), min_size=1, max_size=4))
    return schedule(components, uses, sequence, budget=draw(st.integers(20, 200)))


def faster(world: Schedule, factor: float) -> Schedule:
    def quick(each: MovedWeights) -> MovedWeights:
        return replace(
            each,
            trunk_s=each.trunk_s / factor,
            block_s=tuple(seconds / factor for seconds in each.block_s),
            back_s=each.back_s / factor,
        )

    return replace(world, weights={name: quick(each) for name, each in world.weights.items()})


@given(worlds(), st.integers(1, 2))
@settings(max_examples=150, deadline=None)
def test_never_faster_than_the_work_or_the_copies(world: Schedule, generations: int) -> None:
    timeline = simulate(world, generations, record=True, exact=True)
    for lane in ("copy", "compute"):
        busy_s = sum(each.end_s - each.start_s for each in timeline.events if each.lane == lane)
        assert timeline.seconds >= busy_s - TINY
    compute_s = sum(world.uses[index].compute_s * count for index, count in world.sequence)
    assert sum(stage.compute_s for stage in timeline.stages[0].values()) == pytest.approx(compute_s)


@given(worlds(), st.integers(1, 2))
@settings(max_examples=150, deadline=None)
def test_skipping_equal_passes_and_adding_up_blocks_changes_nothing(world: Schedule, generations: int) -> None:
    every, skipped = simulate(world, generations, record=True, exact=True), simulate(world, generations)
    assert skipped.generation_s == pytest.approx(every.generation_s)
    assert skipped.peak_bytes == every.peak_bytes
    for quick, full in zip(skipped.stages, every.stages, strict=True):
        assert {name: stage.h2d_bytes for name, stage in quick.items()} == {
            name: stage.h2d_bytes for name, stage in full.items()
        }
        assert {name: stage.stall_s for name, stage in quick.items()} == pytest.approx(
            {name: stage.stall_s for name, stage in full.items()}
        )


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_a_faster_link_never_takes_longer(world: Schedule) -> None:
    assert simulate(faster(world, 1.5)).seconds <= simulate(world).seconds + TINY


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_stages_add_up_to_the_generation(world: Schedule) -> None:
    timeline = simulate(world, 2)
    for seconds, stages in zip(timeline.generation_s, timeline.stages, strict=True):
        assert sum(stage.seconds for stage in stages.values()) == pytest.approx(seconds)


@given(worlds())
@settings(max_examples=150, deadline=None)
def test_peak_is_what_the_memory_events_add_up_to(world: Schedule) -> None:
    timeline = simulate(world, record=True, exact=True)
    allocated, peak = 0, 0
    by_component: dict[str, int] = {}
    for event in timeline.memory:
        allocated += event.change_bytes
        peak = max(peak, allocated)
        if event.what == "weights":
            by_component[event.component] = by_component.get(event.component, 0) + event.change_bytes
            assert by_component[event.component] <= world.weights[event.component].active_bytes
    assert peak == timeline.peak_bytes
    lasting = {name for name, each in world.weights.items() if each.stays or each.linger}
    assert all(size == 0 or name in lasting for name, size in by_component.items())


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_everything_that_fits_the_budget_stays_within_it(world: Schedule) -> None:
    """Resident weights plus the largest use of the rest is all that must ever fit together."""
    staying = sum(each.total_bytes for each in world.weights.values() if each.stays)
    needed = 0
    for index, _ in world.sequence:
        each = world.weights[world.uses[index].component]
        needed = max(needed, (0 if each.stays else each.active_bytes) + world.uses[index].activation_bytes)
    if staying + needed <= world.budget_bytes:
        assert simulate(world).peak_bytes <= world.budget_bytes


@given(worlds())
@settings(max_examples=50, deadline=None)
def test_resident_components_copy_nothing_and_never_wait(world: Schedule) -> None:
    kept = {name: replace(each, strategy="resident") for name, each in world.weights.items()}
    timeline = simulate(replace(world, weights=kept), record=True)
    assert not [event for event in timeline.events if event.lane == "copy"]
    compute_s = sum(world.uses[index].compute_s * count for index, count in world.sequence)
    assert timeline.seconds == pytest.approx(compute_s)


def test_snapshot_streams_in_during_its_first_pass_and_never_copies_back() -> None:
    snapshot, component = (
        simulate(schedule([weights("a", [4] * 4, strategy)], [use("a", [4.0] * 4)], [(0, 1)]))
        for strategy in ("snapshot-offload", "component-offload")
    )
    # Only the trunk and the first block are waited for; the rest comes in behind compute.
    assert snapshot.seconds == pytest.approx(1 + 4 + 4 * 4 + 0.25)
    assert component.seconds == pytest.approx(17 + 16.5 + 17)
    assert sum(stage.d2h_bytes for stage in snapshot.stages[0].values()) == 0


def test_a_component_needed_again_stays_while_it_fits() -> None:
    """Encoders run again for the negative prompt: with room for both, the second round copies nothing."""
    two = [weights("a", [5], "snapshot-offload"), weights("b", [5], "snapshot-offload")]
    uses, sequence = [use("a", [1.0]), use("b", [1.0])], [(0, 1), (1, 1), (0, 1), (1, 1)]
    copied = [
        sum(stage.h2d_bytes for stage in simulate(schedule(two, uses, sequence, budget)).stages[0].values())
        for budget in (12, 11)
    ]
    assert copied == [12, 24]


def test_a_lingering_component_is_there_for_the_next_generation() -> None:
    made = weights("a", [5], "snapshot-offload", linger=True)
    timeline = simulate(schedule([made], [use("a", [1.0])], [(0, 2)]), generations=2)
    assert [sum(stage.h2d_bytes for stage in each.values()) for each in timeline.stages] == [6, 0]


@given(st.lists(st.integers(0, 2), max_size=40))
def test_patterns_cover_every_call_once(calls: list[int]) -> None:
    unfolded: list[int] = []
    for length, repeats in repeated_patterns(calls):
        unfolded += calls[len(unfolded) : len(unfolded) + length] * repeats
    assert unfolded == calls
