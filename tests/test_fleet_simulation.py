"""The simulated fleet agrees with closed forms, with a recurrence worked out request by request, and loses nothing."""

from __future__ import annotations

import random
import time
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.planner.fleet.simulation import Failure, Line, Outcome, Pool, simulate


def line(*pools: tuple[int, float], gap_s: float = 0.0) -> Line:
    """Pools of so many workers that take so many seconds, one step each."""
    made = tuple(
        Pool(role=f"role-{step}", steps=(step,), seconds=((seconds,),) * count)
        for step, (count, seconds) in enumerate(pools)
    )
    return Line(pools=made, gaps_s=(gap_s,) * (len(pools) - 1))


def poisson(count: int, rate: float) -> list[float]:
    chance = random.Random(7)
    return list(accumulate(chance.expovariate(rate) for _ in range(count)))


def test_one_worker_waits_as_the_md1_formula_says() -> None:
    """M/D/1: mean wait = load · service / (2 · (1 − load))."""
    for load in (0.3, 0.7):
        outcome = simulate(line((1, 1.0)), poisson(100_000, load))
        mean_s = sum(outcome.sojourns_s) / outcome.finished
        assert mean_s == pytest.approx(1 + load / (2 * (1 - load)), rel=0.05)
        assert outcome.busy["role-0"] == pytest.approx(load, rel=0.02)


@pytest.mark.parametrize(
    ("pools", "pace"),
    [
        (((3, 2.0),), 3 / 2),
        (((1, 0.5), (1, 2.0), (1, 0.5)), 1 / 2),
        (((1, 0.5), (8, 2.0), (1, 0.1)), 1 / 0.5),  # the encoder's
        (((1, 0.9), (2, 1.0), (1, 0.9)), 1 / 0.9),
    ],
)
def test_a_full_pipeline_has_the_pace_of_its_bottleneck(pools, pace) -> None:
    assert simulate(line(*pools), [0.0] * 4000).requests_per_s == pytest.approx(pace, rel=0.01)


@settings(max_examples=150, deadline=None)
@given(
    pools=st.lists(st.tuples(st.integers(1, 4), st.floats(0.1, 5)), min_size=1, max_size=3),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=40),
    gap_s=st.sampled_from([0.0, 0.3]),
)
def test_every_request_ends_when_a_recurrence_says(pools, gaps, gap_s) -> None:
    arrivals = list(accumulate(gaps))
    outcome = simulate(line(*pools, gap_s=gap_s), arrivals)
    ends = recurrence(pools, arrivals, gap_s)
    assert outcome.sojourns_s == pytest.approx(sorted(end - at for end, at in zip(ends, arrivals, strict=True)))
    assert outcome.makespan_s == pytest.approx(ends[-1] - arrivals[0])


def recurrence(pools: list[tuple[int, float]], arrivals: list[float], gap_s: float) -> list[float]:
    """Workers of a pool are alike, so requests keep their order: each waits for the one that many before it."""
    room = sum(count for count, _ in pools)
    ends: list[list[float]] = []
    for request, arrival in enumerate(arrivals):
        at_s, mine = max(arrival, ends[request - room][-1] if request >= room else 0.0), []
        for step, (count, seconds) in enumerate(pools):
            before_s = ends[request - count][step] if request >= count else 0.0
            at_s = max(at_s + (gap_s if step else 0.0), before_s) + seconds
            mine.append(at_s)
        ends.append(mine)
    return [each[-1] for each in ends]


def test_a_pool_of_two_steps_serves_both_in_the_order_in_which_they_come() -> None:
    shared = Line(
        pools=(
            Pool(role="shared", steps=(0, 2), seconds=((1.0, 1.0),)),
            Pool(role="denoiser", steps=(1,), seconds=((1.0,),) * 3),
        )
    )
    assert simulate(shared, [0.0] * 200).requests_per_s == pytest.approx(1 / 2, rel=0.02)


def test_quicker_workers_are_asked_first() -> None:
    unequal = Line(pools=(Pool(role="replica", steps=(0,), seconds=((9.0,), (1.0,))),))
    assert simulate(unequal, [0.0, 20.0, 40.0]).sojourns_s == (1.0, 1.0, 1.0)


def failing(*deaths: float) -> Outcome:
    """One worker that takes 10 s a request and dies at those seconds, with three requests."""
    failures = [Failure(pool=0, worker=0, at_s=at_s, down_s=1.0) for at_s in deaths]
    return simulate(line((1, 10.0)), [0.0] * 3, failures)


def test_a_request_whose_worker_dies_is_tried_again_first() -> None:
    outcome = failing(4.0)
    assert (outcome.finished, outcome.failed) == (3, 0)
    assert outcome.sojourns_s == (15.0, 25.0, 35.0)


def test_a_request_is_given_up_after_two_retries_and_nobody_else_is() -> None:
    outcome = failing(1.0, 3.0, 5.0)
    assert (outcome.finished, outcome.failed) == (2, 1)
    assert outcome.sojourns_s == (16.0, 26.0)


@settings(max_examples=60, deadline=None)
@given(
    pools=st.lists(st.tuples(st.integers(1, 3), st.floats(0.5, 3)), min_size=1, max_size=3),
    deaths=st.lists(st.tuples(st.integers(0, 2), st.floats(0, 40), st.floats(0.1, 5)), max_size=15),
)
def test_with_any_deaths_every_request_ends_or_is_counted(pools, deaths) -> None:
    failures = [Failure(pool=each % len(pools), worker=0, at_s=at_s, down_s=s) for each, at_s, s in deaths]
    outcome = simulate(line(*pools), [0.0] * 25, failures)
    assert outcome.finished + outcome.failed == 25
    assert all(0 <= share <= 1 + 1e-9 for share in outcome.busy.values())


def test_a_thousand_cards_and_a_hundred_thousand_requests_take_seconds() -> None:
    fleet = line((45, 0.03), (900, 0.31), (55, 0.04), gap_s=0.01)
    began = time.process_time()
    outcome = simulate(fleet, poisson(100_000, 1200.0))
    assert time.process_time() - began < 10
    assert outcome.finished == 100_000
    assert outcome.percentile_s(0.5) <= outcome.percentile_s(0.95)
