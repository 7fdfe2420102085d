"""The statistics of the race: quantiles against published tables, and what a comparison must not depend on."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.tune.race.statistics import below, compare, levels, noise_of, t_quantile, undisturbed

LAPS = {
    "a": {1: 0.00, 2: 0.01, 3: -0.01},
    "b": {1: 0.10, 2: 0.12, 3: 0.09},
    "c": {1: 0.21, 2: 0.19},
}
times = st.floats(-2, 2)


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    [
        (0.975, 1, 12.7062),
        (0.95, 2, 2.91999),
        (0.95, 3, 2.35336),
        (0.975, 4, 2.77645),
        (0.995, 5, 4.03214),
        (0.975, 10, 2.22814),
        (0.999, 7, 4.78529),
        (0.975, 30, 2.04227),
        (0.5, 3, 0.0),
    ],
)
def test_quantiles_are_those_of_the_tables(probability, freedom, quantile) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(quantile, abs=1e-4)


@given(st.floats(0.5, 0.9999), st.integers(1, 60))
def test_a_quantile_has_its_probability_below_it(probability, freedom) -> None:
    assert below(t_quantile(probability, freedom), freedom) == pytest.approx(probability, abs=1e-9)


@pytest.mark.parametrize(("probability", "freedom"), [(0.975, 0), (1.0, 3), (0.4, 3)])
def test_impossible_quantiles_are_refused(probability, freedom) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        t_quantile(probability, freedom)


def test_two_candidates_give_the_paired_t_interval() -> None:
    laps = {name: LAPS[name] for name in "ab"}
    found = compare(laps, "b", "a", noise_of(laps))
    # Differences 0.10, 0.11, 0.10: mean 0.10333, standard deviation 0.0057735, t(0.975, 2) = 4.30265.
    assert found.freedom == 2
    assert found.log_ratio == pytest.approx(0.103333, abs=1e-6)
    assert found.error == pytest.approx(0.0057735 / math.sqrt(3), abs=1e-7)
    assert found.bounds(0.025) == pytest.approx((0.0889912, 0.1176754), abs=1e-6)


@given(st.lists(times, min_size=3, max_size=3))
def test_what_slows_a_whole_round_changes_no_comparison(slower) -> None:
    moved = {name: {r: each + slower[r - 1] for r, each in lap.items()} for name, lap in LAPS.items()}
    for name, rival in (("b", "a"), ("c", "a"), ("c", "b")):
        before, after = (compare(laps, name, rival, noise_of(laps)) for laps in (LAPS, moved))
        assert after.log_ratio == pytest.approx(before.log_ratio, abs=1e-9)
        assert after.error == pytest.approx(before.error, abs=1e-6)


def test_levels_compare_candidates_that_ran_different_rounds() -> None:
    laps = {"a": {1: 0.0, 2: 0.5}, "b": {1: 0.2, 2: 0.7}, "c": {1: 0.1}}  # the second round was slow
    own = levels(laps)
    assert own["b"] - own["a"] == pytest.approx(0.2, abs=1e-6)
    assert own["c"] - own["a"] == pytest.approx(0.1, abs=1e-3)


def test_one_round_has_no_noise_to_judge_by() -> None:
    assert noise_of({"a": {1: 0.0}, "b": {1: 0.1}}) is None
    assert noise_of({"a": {1: 0.0, 2: 0.1}}) is None


def test_a_pair_that_varies_more_than_the_field_is_judged_by_its_own_spread() -> None:
    laps = {**{name: {1: 0.0, 2: 0.001, 3: 0.0} for name in "abcdef"}, "wild": {1: 0.1, 2: 0.2, 3: 0.0}}
    noise = noise_of(laps)
    wild = compare(laps, "wild", "a", noise)
    assert wild.error > math.sqrt(2 / 3) * noise.sigma
    assert compare(laps, "b", "a", noise).error == pytest.approx(math.sqrt(2 / 3) * noise.sigma)


def test_a_slow_round_is_taken_out_and_a_fast_one_never() -> None:
    quiet = {name: {1: 0.0, 2: 0.004, 3: -0.003, 4: 0.002} for name in "abc"}
    assert undisturbed({**quiet, "d": {1: 0.4, 2: 0.0, 3: 0.01, 4: 0.0}})["d"].keys() == {2, 3, 4}
    assert undisturbed({**quiet, "d": {1: -0.02, 2: 0.0, 3: 0.01, 4: 0.0}})["d"].keys() == {1, 2, 3, 4}
    assert undisturbed(quiet) == quiet


def test_what_is_often_slow_is_slow() -> None:
    quiet = {name: {1: 0.0, 2: 0.004, 3: -0.003, 4: 0.002} for name in "abc"}
    often = {1: 0.4, 2: 0.0, 3: 0.4, 4: 0.4}
    assert undisturbed({**quiet, "d": often})["d"] == often
