"""The exact combination: limits that hold to the byte, bounds that cut off no plan, and what counts as simple."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from roost.facts.request import Choices
from roost.planner.search.candidates import candidate_placements, complexity
from roost.planner.search.columns import Aim, Terms, limits_of, price_all, scope_of
from roost.planner.search.levels import Levels, runner_up
from roost.planner.search.pricing import Pricer
from roost.planner.search.search import pareto_front, search
from roost.planner.search.solver import Column, Limits, Pace, Table, fastest, possible, simplest
from roost.units import GiB
from traces import case_of, forecast, trace, use
from worlds import component

TERA = 10**12
LIKELY = Aim(certainty="likely")
# Converted as they load, so that no master can stay in a file.
CAST = (
    component("transformer", 8 * GiB, blocks=4, bytes_by_dtype={"F32": 16 * GiB}),
    component("text_encoder", 4 * GiB, blocks=2, position=1, bytes_by_dtype={"F32": 8 * GiB}),
)


def world(parts=CAST, choices: Choices | None = None, **machine: Any):
    made = forecast(parts, trace(*((use(each, 20 * TERA, GiB), 4) for each in parts)), **machine)
    return (*case_of(parts, made, choices), made)


def columns_of(case, ruled, made) -> tuple[Pricer, dict[str, Column]]:
    pricer = Pricer(made)
    return pricer, Terms(sure=False, tiled=False).columns(price_all(case, ruled, pricer, LIKELY), pricer)


def test_host_memory_and_what_of_it_may_be_pinned_are_limits_to_the_byte() -> None:
    _, columns = columns_of(*world(free_gib=10))
    least_bytes = sum(min(each.host_bytes for each in column.options) for column in columns.values())
    kept_bytes = min(column.idle_bytes for column in columns.values())  # one of them can stay, and needs no master
    limits = Limits(vram_bytes=10 * GiB, host_bytes=100 * GiB, pinned_bytes=0)
    needed_bytes = next(
        size for size in (least_bytes, 8 * GiB, 12 * GiB) if possible(columns, replace(limits, host_bytes=size))
    )
    assert kept_bytes > 0
    assert needed_bytes > 0
    assert not possible(columns, replace(limits, host_bytes=needed_bytes - 1))
    pinned = {
        name: Column([each for each in column.options if each.pinned_bytes == each.host_bytes > 0], separable=True)
        for name, column in columns.items()
    }
    most = Limits(vram_bytes=10 * GiB, host_bytes=12 * GiB, pinned_bytes=12 * GiB)
    assert possible(pinned, most)
    for short in ({"host_bytes": 12 * GiB - 1}, {"pinned_bytes": 12 * GiB - 1}):
        assert not possible(pinned, replace(most, **short))


def test_the_fastest_below_its_own_seconds_is_none_and_the_simplest_at_them_is_some() -> None:
    case, ruled, made = world(free_gib=10)
    pricer, columns = columns_of(case, ruled, made)
    best = fastest(pricer, columns, limits_of(made))
    assert best is not None
    assert fastest(pricer, columns, limits_of(made), below_s=best.seconds) is None
    same = simplest(pricer, columns, limits_of(made), Pace(seconds=best.seconds, next_s=best.next_s))
    assert same is not None
    assert same.seconds == best.seconds


def test_the_runner_up_is_the_fastest_of_those_with_another_strategy() -> None:
    case, ruled, made = world(free_gib=40)
    pricer, columns = columns_of(case, ruled, made)
    chosen = fastest(pricer, columns, limits_of(made))
    assert chosen is not None
    others = []
    for name, taken in zip(columns, chosen.options, strict=True):
        other = [each for each in columns[name].options if each.placement.strategy != taken.placement.strategy]
        found = fastest(pricer, {**columns, name: Column(other, pricer.separable)}, limits_of(made))
        assert found is not None
        others.append(found.seconds)
    second = runner_up(Levels(pricer, columns, limits_of(made)), chosen)
    assert second is not None
    assert second.seconds == min(others) < max(others)


def test_a_front_has_steps_only_where_something_fits() -> None:
    """With host memory for nothing, only what stays on the device fits; less VRAM holds no plan at all."""
    found = search(*world(free_gib=60, ram_gib=0.5), LIKELY)
    assert found.chosen is not None
    assert {each.placement.strategy for each in found.chosen.options} == {"resident"}
    assert found.front == (found.chosen,)


def test_of_plans_that_are_as_good_in_all_but_one_figure_the_better_one_stays_in_the_front() -> None:
    best, slower, larger, hungrier = (
        SimpleNamespace(vram_bytes=vram, seconds=seconds, host_bytes=host)
        for vram, seconds, host in ((5, 1.0, 5), (5, 2.0, 5), (6, 1.0, 5), (5, 1.0, 6))
    )
    assert pareto_front([slower, best, larger, hungrier]) == (best,)  # type: ignore[arg-type]
    other = SimpleNamespace(vram_bytes=6, seconds=0.5, host_bytes=9)
    assert pareto_front([best, other, slower]) == (other, best)  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", ["snapshot-offload", "component-offload"])
def test_a_copy_that_has_to_go_each_time_costs_what_one_costs_that_never_lingers(strategy: Any) -> None:
    _, ruled, made = world(generations=3)
    pricer = Pricer(made)
    moved = replace(ruled[0], strategy=strategy, streaming=None, tier="pageable")
    lingering, leaving = (pricer.option(replace(moved, linger=linger)) for linger in (True, False))
    back_s = moved.master_bytes / 10e9 if strategy == "component-offload" else 0.0  # of the last generation
    assert lingering.seconds < lingering.evicted_s == pytest.approx(leaving.seconds - back_s)
    assert leaving.evicted_s == leaving.seconds


def waiting_world(chance: Random):
    """Three components that wait for their next use: others come between, in this generation or before the next."""
    parts = tuple(
        component(name, chance.randint(1, 8) * GiB, blocks=chance.randint(0, 4), position=position)
        for position, name in enumerate(("transformer", "text_encoder", "vae"))
    )
    rounds = {"calls": chance.choice((1, 2)), "method": "decode"}
    uses = [
        *(use(each, chance.randint(1, 60) * TERA, chance.randint(0, 3) * GiB) for each in parts),
        use(parts[2], chance.randint(1, 60) * TERA, chance.randint(0, 3) * GiB, **rounds),
    ]
    # A VAE that encodes and decodes touches only some blocks in each.
    uses[3] = replace(uses[3], blocks=uses[3].blocks[: chance.randint(0, 4)])
    calls = [(chance.choice(uses), chance.randint(1, 4)) for _ in range(chance.randint(4, 7))]
    free_gib = chance.randint(4, 20)
    return parts, forecast(parts, trace(*calls), free_gib=free_gib, generations=chance.choice((1, 1, 2, 3)))


@pytest.mark.parametrize("seed", [*range(20), 51, 69])
def test_no_whole_plan_takes_less_than_the_bound_of_any_part_of_it(seed: int) -> None:
    chance = Random(seed)
    parts, made = waiting_world(chance)
    case, ruled = case_of(parts, made)
    pricer = Pricer(made)
    columns = []
    for each in ruled:
        placements = list(candidate_placements(case, each, scope_of(each, pricer, LIKELY)))
        columns.append([pricer.option(one) for one in chance.sample(placements, min(4, len(placements)))])
    for options in product(*columns):
        plan = pricer.combination(options)
        if plan.vram_bytes <= pricer.room_bytes:
            beside = [
                [each for each in column if bool(each.idle_bytes) == bool(one.idle_bytes)]
                for column, one in zip(columns, options, strict=True)
            ]
            table = Table(beside, pricer.room_bytes - sum(each.idle_bytes for each in options))
            for depth in range(len(options) + 1):
                assert table.bound_s(options[:depth]) <= plan.seconds + 1e-9


def test_encoders_that_evict_each_other_are_bound_by_the_copies_that_both_need_again() -> None:
    parts = (
        component("text_encoder", 6 * GiB, blocks=4),
        component("text_encoder_2", 6 * GiB, blocks=4, position=1),
        component("vae", GiB, position=2),
    )
    calls = [(use(each, TERA), 1) for each in parts]
    made = forecast(parts, trace(*calls[:2], *calls), free_gib=8)
    pricer = Pricer(made)
    moved = [
        pricer.option(replace(each, strategy="snapshot-offload", streaming=None, tier="pinned"))
        for each in case_of(parts, made)[1]
    ]
    plan, table = pricer.combination(moved), Table([[each] for each in moved], pricer.room_bytes)
    alone_s, copies_s = sum(each.seconds for each in moved), 2 * 6 * GiB / 20e9
    assert plan.seconds == pytest.approx(alone_s + copies_s, rel=0.01)  # computing hides a little of them
    assert table.bound_s(moved) == table.rest_s[0] == pytest.approx(plan.seconds)
    assert Table([[each] for each in moved], 14 * GiB).bound_s(moved) == pytest.approx(alone_s)


def test_other_platforms_than_cuda_have_the_rules_placements_alone() -> None:
    case, ruled, made = world(choices=Choices(platform="rocm"))
    scope = scope_of(ruled[0], Pricer(made), LIKELY)
    assert list(candidate_placements(case, ruled[0], scope)) == [ruled[0]]


@pytest.mark.parametrize(
    ("stored", "tiers"), [(CAST[0], {"pinned", "pageable"}), (None, {"pinned", "pageable", "mapped"})]
)
def test_what_moves_as_a_whole_may_lie_in_every_tier_that_its_files_allow(stored: Any, tiers: set[str]) -> None:
    case, ruled, made = world((stored or component("transformer", 8 * GiB, blocks=4), CAST[1]))
    found = candidate_placements(case, ruled[0], scope_of(ruled[0], Pricer(made), LIKELY))
    assert {each.tier for each in found if each.strategy == "snapshot-offload"} == tiers


@pytest.mark.parametrize(("calls", "chunked"), [(1, False), (2, True)])
def test_what_runs_its_blocks_in_rounds_is_chunked(calls: int, chunked: bool) -> None:
    made = forecast(CAST, trace((use(CAST[0], TERA, calls=calls), 4)))
    ruled = case_of(CAST, made)[1]
    assert scope_of(ruled[0], Pricer(made), LIKELY).chunked == chunked


def test_each_tier_beyond_the_first_the_policy_and_the_depth_are_a_point_each() -> None:
    case, ruled, made = world((component("transformer", 8 * GiB, blocks=4), CAST[1]))
    scope = scope_of(ruled[0], Pricer(made), LIKELY)
    moved = [each for each in candidate_placements(case, ruled[0], scope) if each.streaming is not None]
    plain = next(each for each in moved if each.streaming and each.streaming.pinned == 4)
    assert plain.streaming is not None

    def points(**changes: Any) -> int:
        return complexity(replace(plain, streaming=replace(plain.streaming, **changes)))

    assert points(prefetch=1, resident_policy="strided") == 2
    assert points(prefetch=1, pinned=3, pageable=1) == points(prefetch=1, pinned=1, pageable=3) == 3
    assert points(prefetch=1, pinned=2, pageable=1, mapped=1) == 4
    assert points(prefetch=2, resident_policy="leading") == 4
    assert complexity(replace(plain, strategy="resident", streaming=None)) == 0
    assert complexity(replace(plain, strategy="snapshot-offload", streaming=None, tiling=True)) == 3
