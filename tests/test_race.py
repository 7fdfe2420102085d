"""The race picks the best of a planted field in little time, and says why each other candidate is out."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racing_fields import (
    Machine,
    by_prediction,
    messy_machine,
    run_race,
    scripted,
    shuffled,
    time_exhaustively,
    whole_round_s,
)
from roost.tune.race.race import RaceSettings, race

CLEAR = (1.0, 1.05, 1.1, 1.15, 1.25, 1.4, 1.7, 2.2)
CLOSE = (1.0, 1.01, 1.02, 1.03, 1.05, 1.1, 1.2, 1.5)
REPETITIONS = 150
ROUNDS = 5


def spread_out(seed: int) -> tuple[float, ...]:
    chance = random.Random(f"field {seed}")
    return tuple(math.exp(chance.uniform(0, 0.8)) for _ in range(8))


@pytest.mark.long
@pytest.mark.parametrize("sigma", [0.01, 0.02])
@pytest.mark.parametrize(
    ("field", "share_of_time"),
    [(lambda seed: CLEAR, 0.5), (spread_out, 0.5), (lambda seed: CLOSE, 0.75)],
    ids=["clear", "spread out", "four within 3 %"],
)
def test_the_best_of_eight_is_found_in_half_the_time_of_timing_them_all(field, share_of_time, sigma) -> None:
    right = raced_s = exhaustive_s = 0
    for seed in range(REPETITIONS):
        step_s = shuffled(field(seed), seed)
        machine = messy_machine(step_s, seed, sigma)
        winner = run_race(machine, rounds=ROUNDS).winner
        right += step_s[winner] <= 1.02 * min(step_s.values())  # less is a tie
        raced_s += machine.now_s
        exhaustive = messy_machine(step_s, seed, sigma)
        time_exhaustively(exhaustive, ROUNDS)
        exhaustive_s += exhaustive.now_s
    assert right >= 0.9 * REPETITIONS
    assert raced_s <= share_of_time * exhaustive_s


def offloading(seed: int) -> tuple[float, ...]:
    """Long steps that differ as offloading makes them differ: up to fivefold."""
    chance = random.Random(f"offloading {seed}")
    return tuple(6 * math.exp(chance.uniform(0, 1.6)) for _ in range(8))


def test_equals_are_a_tie_that_the_first_candidate_wins() -> None:
    outcome = run_race(Machine({"simple": 1.0, "clever": 1.0}))
    assert outcome.winner == "simple"
    assert outcome.standings[1].status == "eliminated"
    assert "a tie" in outcome.standings[1].reason


def test_a_candidate_within_the_tolerance_does_not_displace_an_earlier_one() -> None:
    assert run_race(Machine({"simple": 1.0, "clever": 0.995}, sigma=0.002)).winner == "simple"
    assert run_race(Machine({"simple": 1.0, "clever": 0.95}, sigma=0.002)).winner == "clever"


def test_rounds_interleave_forth_and_back_so_that_a_drift_favours_nobody() -> None:
    machine = Machine({"a": 1.0, "b": 1.01, "c": 1.005}, sigma=0.01, drift=0.3)
    assert run_race(machine).winner is not None
    assert machine.trials[:6] == ["a", "b", "c", "c", "b", "a"]


def test_a_trial_that_is_half_again_as_slow_as_the_best_is_stopped_and_gets_one_more_chance() -> None:
    machine = Machine({"fast": 1.0, "slow": 1.6})
    outcome = run_race(machine)
    assert machine.trials == ["fast", "slow", "slow", "fast"]
    assert outcome.standings[1].status == "eliminated"
    assert outcome.standings[1].reason == "stopped twice: its steps took more than 1.5 × those of fast"


def test_a_slow_first_run_costs_nobody_the_race() -> None:
    machine = Machine({"a": 1.1, "best": 1.0, "c": 1.2}, sigma=0.005, slow_first={"best": 1.8})
    assert run_race(machine).winner == "best"


def test_a_round_that_was_held_up_is_in_no_figure() -> None:
    rounds = {"a": [1.0, 1.4, 1.01, 1.0], "b": [1.1, 1.11, 1.1, 1.12], "c": [1.09, 1.1, 1.12, 1.1]}
    outcome = race(list(rounds), scripted(rounds), RaceSettings(rounds=4, doubt=1e-9))
    held_up = outcome.standings[0]
    assert outcome.winner == "a"
    assert (held_up.held_up, len(held_up.rounds_s)) == (1, 4)
    assert held_up.mean_s == pytest.approx(1.0033, abs=1e-4)


def test_what_fails_is_out_with_its_reason_whatever_it_measured_before() -> None:
    rounds = {"oom": ["oom"], "wrong": ["wrong"], "late": [1.0, "crashed"], "a": [1.1, 1.1], "b": [1.5, 1.5]}
    outcome = race(list(rounds), scripted(rounds), RaceSettings(rounds=2))
    found = {each.name: (each.status, each.reason) for each in outcome.standings}
    assert outcome.winner == "a"
    assert found["oom"] == ("oom", "oom is oom")
    assert found["wrong"] == ("wrong", "wrong is wrong")
    assert found["late"] == ("crashed", "late is crashed")


def test_nobody_wins_when_everything_fails() -> None:
    outcome = race(["a", "b"], scripted({"a": ["oom"], "b": ["hung"]}), RaceSettings())
    assert outcome.winner is None
    assert outcome.rounds == 1
    assert [each.status for each in outcome.standings] == ["oom", "hung"]


def test_a_lone_candidate_runs_once() -> None:
    machine = Machine({"only": 1.0})
    outcome = run_race(machine)
    assert (outcome.winner, machine.trials) == ("only", ["only"])
    assert outcome.standings[0].ratio is None


def test_before_there_is_a_best_a_trial_stops_at_three_times_its_prediction() -> None:
    limits = {}

    def measure(name, limit):
        limits.setdefault(name, limit)
        return Machine({name: 1.0}).measure(name, limit)

    race(["a", "b"], measure, RaceSettings(rounds=1, predicted_step_s={"a": 2.0, "b": 2.0}))
    assert limits == {"a": 6.0, "b": 1.5}


def test_predictions_that_are_all_wrong_leave_a_winner() -> None:
    machine = Machine({"a": 1.0, "b": 1.2})
    outcome = run_race(machine, predicted_step_s={"a": 0.1, "b": 0.1})
    assert outcome.winner == "a"


def test_a_candidate_that_was_stopped_in_the_only_round_is_out() -> None:
    outcome = run_race(Machine({"a": 1.0, "b": 1.7}), rounds=1)
    assert outcome.standings[1].status == "eliminated"
    assert outcome.standings[1].reason == "its steps took more than 1.5 × those of a"


def test_time_that_ends_in_the_first_round_leaves_the_last_candidates_out() -> None:
    machine = Machine({"a": 1.0, "b": 0.9, "c": 0.5})
    outcome = run_race(machine, budget_s=17.0)
    assert machine.now_s <= 17.0
    assert outcome.winner == "b"
    assert (outcome.standings[2].status, outcome.standings[2].reason) == ("skipped", "no time was left of 17.0 s")
    assert outcome.why == "the time of 17.0 s is over"
    assert outcome.untimed == ("c",)


def test_only_who_time_was_too_short_for_is_called_untimed() -> None:
    rounds = {"oom": ["oom"], "a": [1.0, 1.0], "b": [2.0, 2.0]}
    assert race(list(rounds), scripted(rounds), RaceSettings(rounds=2, budget_s=100.0), clock=lambda: 0.0).untimed == ()


def test_of_a_field_that_time_is_too_short_for_the_first_candidates_are_raced_and_the_last_are_not() -> None:
    for seed in range(20):
        step_s = by_prediction(shuffled(offloading(seed), seed), seed, 0.15)
        machine = messy_machine(step_s, seed, 0.015)
        outcome = run_race(machine, rounds=3, budget_s=0.3 * whole_round_s(machine))
        raced = [name for name in step_s if name in machine.trials]
        assert raced == list(step_s)[: len(raced)]
        assert outcome.untimed == tuple(step_s)[len(raced) :]
        assert outcome.winner in raced


def test_with_time_for_half_a_round_predictions_with_the_order_nearly_right_find_the_best() -> None:
    right = right_by_chance = 0
    for seed in range(REPETITIONS):
        step_s = shuffled(offloading(seed), seed)
        predicted = messy_machine(by_prediction(step_s, seed, 0.15), seed, 0.015)
        by_chance = messy_machine(step_s, seed, 0.015)
        budget_s = 0.5 * whole_round_s(predicted)
        right += step_s[run_race(predicted, rounds=3, budget_s=budget_s).winner] <= 1.02 * min(step_s.values())
        other = run_race(by_chance, rounds=3, budget_s=budget_s).winner
        right_by_chance += step_s[other] <= 1.02 * min(step_s.values())
    assert right >= 0.85 * REPETITIONS
    assert right >= right_by_chance + 0.3 * REPETITIONS


def test_time_for_a_second_round_of_two_is_kept_back() -> None:
    step_s = {name: 1.0 + place / 10 for place, name in enumerate("abcdef")}
    machine = Machine(step_s, sigma=0.01)
    outcome = run_race(machine, budget_s=45.0)
    assert [each.status for each in outcome.standings[3:]] == ["skipped"] * 3
    assert machine.trials == ["a", "b", "c", "b", "a"]
    assert outcome.standings[1].ratio_error is not None
    once = Machine(step_s)
    run_race(once, budget_s=45.0, rounds=1)
    assert once.trials == ["a", "b", "c", "d", "e"]


def test_a_round_without_time_for_everybody_is_between_the_leaders() -> None:
    machine = Machine({"a": 1.04, "b": 1.03, "c": 1.0, "d": 1.02}, sigma=0.01)
    run_race(machine, budget_s=4 * 8.3 + 2 * 8.4)
    assert len(machine.trials) == 6
    assert set(machine.trials[4:]) < {"b", "c", "d"}


def test_the_budget_is_kept() -> None:
    for seed in range(20):
        machine = messy_machine(shuffled(CLEAR, seed), seed, 0.02)
        run_race(machine, budget_s=120.0)
        assert machine.now_s <= 120.0 * 1.1  # a trial under way is not cut off


def test_each_round_is_reported_with_who_is_left() -> None:
    reports = []
    run_race(Machine({"a": 1.0, "b": 1.2, "c": 1.001}, sigma=0.002), on_round=reports.append)
    assert [each.round for each in reports] == list(range(1, len(reports) + 1))
    assert set(reports[0].racing) == {"a", "b", "c"}
    assert reports[-1].best == "a"
    assert reports[-1].out["b"].startswith("1.2")


def test_ratios_are_times_over_the_winners_with_one_standard_error() -> None:
    outcome = run_race(Machine({"a": 1.0, "b": 1.3}, sigma=0.01, seed=3), rounds=4)
    ratio = outcome.standings[1]
    assert ratio.ratio == pytest.approx(1.3, rel=0.03)
    assert 0 < ratio.ratio_error < 0.03


def test_a_single_round_has_ratios_of_unknown_error() -> None:
    outcome = run_race(Machine({"a": 1.0, "b": 1.25}), rounds=1)
    assert outcome.winner == "a"
    assert outcome.standings[1].ratio == pytest.approx(1.25)
    assert outcome.standings[1].ratio_error is None


@st.composite
def unruly_fields(draw) -> dict[str, list[float | str]]:
    """What each trial of up to six candidates does: a step time, or one of the ways to fail."""
    failures = st.sampled_from(["oom", "crashed", "hung", "wrong", "eliminated"])
    trial = st.one_of(st.floats(0.01, 10.0), failures)
    names = "abcdef"[: draw(st.integers(1, 6))]
    return {name: draw(st.lists(trial, min_size=4, max_size=4)) for name in names}


@pytest.mark.long
@given(unruly_fields(), st.integers(1, 4), st.one_of(st.none(), st.floats(0, 30)))
def test_whatever_trials_do_everybody_has_a_standing_and_only_what_ran_can_win(field, rounds, budget_s) -> None:
    seconds = itertools.count()
    settings = RaceSettings(rounds=rounds, budget_s=budget_s)
    outcome = race(list(field), scripted(field), settings, clock=lambda: float(next(seconds)))
    standings = {each.name: each for each in outcome.standings}
    assert list(standings) == list(field)
    assert outcome.rounds <= rounds
    for standing in standings.values():
        assert (standing.mean_s is None) == (not standing.rounds_s)
        assert standing.reason or standing.status == "ok"
        if standing.status == "ok":
            assert standing.rounds_s
    if outcome.winner is not None:
        assert standings[outcome.winner].status == "ok"
    else:
        assert "ok" not in {each.status for each in standings.values()}
