"""The search: equal to trying everything, bound by what was typed, and honest about what doesn't fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from roost.facts.model import Stack
from roost.facts.request import Choices
from roost.planner.cost.estimate import predict
from roost.planner.cost.movement import tier_bytes
from roost.planner.rules.selectors import parse_set
from roost.planner.search.candidates import candidate_placements
from roost.planner.search.columns import Aim, Terms, limits_of, price_all, scope_of
from roost.planner.search.levels import NOISE, as_good_as, within
from roost.planner.search.pricing import Pricer
from roost.planner.search.search import search
from roost.planner.search.solver import fastest
from roost.units import GiB
from traces import case_of, forecast, trace, use
from worlds import component

TERA = 10**12
LIKELY = Aim(certainty="likely")


def wan(free_gib: float = 24, ram_gib: float = 128, generations: int = 1, choices: Choices | None = None, **changes):
    """Two experts of 40 blocks or fewer, an encoder and a VAE; a pass computes thrice as long as it copies."""
    blocks = changes.get("blocks", 40)
    parts = (
        component("transformer", 28 * GiB, blocks=blocks),
        component("transformer_2", 28 * GiB, blocks=blocks, position=1),
        component("text_encoder", 10 * GiB, blocks=24, position=2),
        component("vae", GiB // 2, position=3),
    )
    high, low, text, vae = (
        use(parts[0], changes.get("work", 400 * TERA), 4 * GiB),
        use(parts[1], changes.get("work", 400 * TERA), 4 * GiB),
        use(parts[2], TERA, GiB // 4),
        use(parts[3], 60 * TERA, 6 * GiB, "decode"),
    )
    calls = trace((text, 2), (high, 26), (low, 54), (vae, 1), steps=40)
    made = forecast(parts, calls, free_gib=free_gib, ram_gib=ram_gib, generations=generations)
    return (*case_of(parts, made, choices), made)


def chosen(found) -> dict[str, object]:
    assert found.chosen is not None, found.shortfall
    return {each.placement.component.name: each.placement for each in found.chosen.options}


@st.composite
def small_worlds(draw: st.DrawFn):
    """Two or three small components, used in any order, some of them again."""
    names = ("transformer", "text_encoder", "vae")[: draw(st.integers(2, 3))]
    most = 3 if len(names) == 2 else 1
    parts = tuple(
        component(name, draw(st.integers(1, 12)) * GiB, blocks=draw(st.integers(1, most)), position=position)
        for position, name in enumerate(names)
    )
    uses = [use(each, draw(st.integers(1, 60)) * TERA, draw(st.integers(0, 3)) * GiB) for each in parts]
    order = draw(st.lists(st.integers(0, len(uses) - 1), min_size=0, max_size=2))
    calls = [(uses[index], draw(st.integers(1, 5))) for index in (*range(len(uses)), *order)]
    made = forecast(
        parts,
        trace(*calls),
        free_gib=draw(st.integers(3, 40)),
        ram_gib=draw(st.sampled_from([8, 64, 64])),
        generations=draw(st.integers(1, 3)),
    )
    return (*case_of(parts, made), made)


def brute_force(case, ruled, made) -> float | None:
    """Every combination of candidates, each simulated as a whole: the least seconds."""
    pricer = Pricer(made)
    columns = [list(candidate_placements(case, each, scope_of(each, pricer, LIKELY))) for each in ruled]
    plans = []
    for placements in product(*columns):
        tiers = [tier_bytes(each) for each in placements]
        pinned = sum(each["pinned"] for each in tiers)
        host = pinned + sum(each["pageable"] for each in tiers)
        if host > made.machine.host.available_bytes or pinned > made.machine.host.pinnable_bytes:
            continue
        timeline = made.timeline(placements)
        if timeline.peak_bytes <= made.machine.budget_bytes:
            plans.append(made.total_s(made.load_s(placements), timeline))
    return min(plans, default=None)


@pytest.mark.long
# No shrinking: one example takes a second.
@given(small_worlds())
@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_search_equals_brute_force(world) -> None:
    case, ruled, made = world
    found, expected = search(case, ruled, made, LIKELY), brute_force(case, ruled, made)
    if expected is None:
        assert found.chosen is None
        assert found.shortfall is not None
        return
    assert found.chosen is not None
    assert found.chosen.seconds <= NOISE * expected * 1.001
    assert found.chosen.vram_bytes <= limits_of(made).vram_bytes
    # Variants within a two-thousandth of the copies' own time are not priced.
    pricer = Pricer(made)
    columns = Terms(sure=False, tiled=False).columns(price_all(case, ruled, pricer, LIKELY), pricer)
    best = fastest(pricer, columns, limits_of(made))
    assert best is not None
    assert best.seconds <= expected * 1.0006


@given(small_worlds())
@settings(max_examples=15, deadline=None)
def test_what_is_moved_though_it_could_stay_gains_by_it(world) -> None:
    case, ruled, made = world
    found = search(case, ruled, made, LIKELY)
    if found.chosen is None:
        return
    pricer, best = Pricer(made), found.fastest
    assert best is not None
    for index, each in enumerate(found.chosen.options):
        resident = pricer.option(replace(each.placement, strategy="resident", streaming=None))
        options = found.chosen.options
        other = pricer.combination((*options[:index], resident, *options[index + 1 :]))
        if each.placement.strategy != "resident" and within(other, limits_of(made)):
            assert not as_good_as(best).holds(other)


@given(small_worlds())
@settings(max_examples=15, deadline=None)
def test_the_choice_is_never_slower_than_a_rule_plan_that_fits(world) -> None:
    found = search(*world, Aim())
    if found.ruled_fits:
        assert found.chosen is not None
        assert found.chosen.seconds <= NOISE * found.ruled.seconds


@given(small_worlds())
@settings(max_examples=15, deadline=None)
def test_the_front_has_no_plan_that_another_beats(world) -> None:
    found = search(*world, Aim())
    keys = [(each.vram_bytes, each.seconds, each.host_bytes) for each in found.front]
    assert keys == sorted(keys, reverse=True, key=lambda key: key[0])
    for one, other in product(keys, keys):
        assert one == other or any(a < b for a, b in zip(one, other, strict=True))


@given(small_worlds())
@settings(max_examples=15, deadline=None)
def test_a_plan_of_the_search_peaks_within_the_budget_when_simulated(world) -> None:
    found = search(*world, Aim())
    if found.chosen is not None:
        placements = tuple(each.placement for each in found.chosen.options)
        assert predict(world[2], placements).peak_bytes.mid <= world[2].machine.budget_bytes


def test_everything_stays_where_it_fits() -> None:
    placed = chosen(search(*wan(free_gib=139), Aim()))
    assert {each.strategy for each in placed.values()} == {"resident"}


def test_a_dit_larger_than_the_card_streams() -> None:
    placed = chosen(search(*wan(free_gib=16), Aim()))
    assert placed["transformer"].strategy == placed["transformer_2"].strategy == "layerwise-offload"


@pytest.mark.slow
@pytest.mark.long
def test_vram_goes_to_residents_when_copies_dominate() -> None:
    tight = chosen(search(*wan(free_gib=16, work=10 * TERA, blocks=20), Aim()))
    roomy = chosen(search(*wan(free_gib=24, work=10 * TERA, blocks=20), Aim()))
    kept = [each["transformer"].streaming.resident_blocks for each in (tight, roomy)]
    assert 0 < kept[0] < kept[1]


def test_residents_go_to_the_stack_that_copies_hold_up() -> None:
    """Blocks of one stack copy for longer than they compute, those of the other hide their copies."""
    stacks = (
        Stack(name="single", block_bytes=(GiB // 2,) * 12),
        Stack(name="double", block_bytes=(3 * GiB // 2,) * 6),
    )
    part = component("transformer", 16 * GiB, blocks=18, stacks=stacks, units=stacks)
    made = forecast((part,), trace((use(part, 60 * TERA, GiB), 40), steps=40), free_gib=10)
    chosen_blocks = {}
    for policy in ("", ",resident_policy=strided", ",resident_policy=leading"):
        choices = Choices(sets=(parse_set(f"dit=layerwise-offload{policy}"),))
        found = search(*case_of((part,), made, choices), made, Aim())
        chosen_blocks[policy] = found.fastest.options[0].placement.resident_indices, found.chosen.seconds
    kept, seconds = chosen_blocks.pop("")
    assert sum(block >= 12 for block in kept) > sum(block < 12 for block in kept)
    assert seconds < min(each for _, each in chosen_blocks.values())


def test_no_residents_are_bought_when_compute_hides_the_copies() -> None:
    """Streaming costs nothing here, so a plan with residents would gain under 2 %; the front holds the small one."""
    found = search(*wan(free_gib=24), Aim(objective="memory"))
    assert found.chosen is not None
    assert found.chosen.vram_bytes < 13 * GiB
    assert found.chosen.seconds <= 1.2 * min(each.seconds for each in found.front)


@pytest.mark.long
def test_memory_objective_trades_no_more_than_the_slowdown() -> None:
    world = wan(free_gib=40, work=20 * TERA, blocks=12)
    fast = search(*world, Aim())
    for slowdown in (1.05, 1.5, 3.0):
        small = search(*world, Aim(objective="memory", max_slowdown=slowdown))
        assert small.chosen.vram_bytes <= fast.chosen.vram_bytes
        assert small.chosen.seconds <= slowdown * fast.chosen.seconds


@pytest.mark.parametrize(
    ("typed", "strategy"),
    [("dit=component-offload", "component-offload"), ("dit=layerwise-offload,prefetch=2", "layerwise-offload")],
)
def test_what_was_typed_binds_the_search(typed: str, strategy: str) -> None:
    found = search(*wan(free_gib=40, choices=Choices(sets=(parse_set(typed),))), Aim())
    placed = chosen(found)["transformer"]
    assert placed.strategy == strategy
    assert placed.decision.decided_by.typed
    if placed.streaming:
        assert placed.streaming.prefetch == 2


def test_no_layerwise_means_none_in_the_search() -> None:
    found = search(*wan(free_gib=16, choices=Choices(dit_layerwise_offload=False)), Aim())
    assert found.chosen is None
    assert (found.shortfall.memory, found.shortfall.component) == ("VRAM", "transformer")


def test_speed_keeps_everything_or_fits_nothing() -> None:
    assert search(*wan(free_gib=24, choices=Choices(mode="speed")), Aim()).chosen is None


def test_manual_keeps_everything_but_what_was_typed() -> None:
    placed = chosen(search(*wan(free_gib=139, choices=Choices(mode="manual")), Aim()))
    assert {each.strategy for each in placed.values()} == {"resident"}
    typed = Choices(mode="manual", sets=(parse_set("dit=layerwise-offload"),))
    placed = chosen(search(*wan(free_gib=40, choices=typed), Aim()))
    assert {name: each.strategy for name, each in placed.items()} == {
        "transformer": "layerwise-offload",
        "transformer_2": "layerwise-offload",
        "text_encoder": "resident",
        "vae": "resident",
    }


@pytest.mark.long
def test_shortfall_is_exact() -> None:
    """With that much more the search succeeds, with a byte less it does not."""
    missing = search(*wan(free_gib=6), Aim()).shortfall
    assert missing is not None
    enough_gib = 6 + missing.short_bytes / GiB
    assert search(*wan(free_gib=enough_gib + 1e-6), Aim()).chosen is not None
    assert search(*wan(free_gib=enough_gib - 1e-3), Aim()).chosen is None


@pytest.mark.long
def test_more_vram_saves_what_the_search_then_finds() -> None:
    found = search(*wan(free_gib=20, work=10 * TERA, blocks=20), Aim())
    more = search(*wan(free_gib=22, work=10 * TERA, blocks=20), Aim())
    assert found.more_vram.seconds == pytest.approx(more.fastest.seconds)
    assert found.more_vram.seconds < found.fastest.seconds


@pytest.mark.long
def test_scarce_host_memory_is_never_overdrawn() -> None:
    for ram in (70, 40, 24):
        found = search(*wan(free_gib=24, ram_gib=ram, blocks=12), Aim())
        if found.chosen is not None:
            assert found.chosen.host_bytes <= ram * GiB
            assert sum(each.pinned_bytes for each in found.chosen.options) <= ram * GiB * 8 // 10


@pytest.mark.long
def test_many_generations_keep_what_they_use_again() -> None:
    once = search(*wan(free_gib=40, blocks=12), Aim())
    often = search(*wan(free_gib=40, generations=50, blocks=12), Aim())
    assert often.chosen.seconds > 20 * (once.chosen.seconds - 20)


@given(small_worlds())
@settings(max_examples=15, deadline=None)
def test_the_runner_up_places_some_component_by_another_strategy(world) -> None:
    found = search(*world, Aim())
    if found.chosen is None or found.runner_up is None:
        return
    pairs = zip(found.chosen.options, found.runner_up.options, strict=True)
    assert any(one.placement.strategy != other.placement.strategy for one, other in pairs)
