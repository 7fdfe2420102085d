"""The race: interleaved rounds of trials until one candidate is left that no other beats by more than a tie.

Nothing here runs a process or knows a strategy: ``measure`` runs one trial of the candidate of that name.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from roost.plan.results import Standing, Status
from roost.tune.race.statistics import Comparison, Noise, compare, levels, noise_of, pairs_of, undisturbed
from roost.tune.results.records import Measurement
from roost.units import format_seconds

Measure = Callable[[str, "float | None"], Measurement]

_ABORTS = 2  # the first may be a slow first run


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceSettings:
    """When a race ends and what it calls worse.

    ``doubt`` is the chance that the race may drop a candidate that is more than ``tolerance`` faster than the winner.
    It is shared out over all looks and rivals (Bonferroni): each of the ``rounds − 1`` looks compares with the
    luckiest of ``n − 1`` rivals, so one comparison gets ``doubt / ((n − 1) · (rounds − 1))``. ``abort_ratio`` stops a
    trial that is this much slower than the best; until there is a best, ``doubtful_ratio`` times its own prediction.
    """

    rounds: int = 5
    budget_s: float | None = None
    tolerance: float = 0.02
    doubt: float = 0.1
    abort_ratio: float = 1.5
    doubtful_ratio: float = 3.0
    predicted_step_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundReport:
    """What one round left: the best so far, who is still in, and why others are not."""

    round: int
    best: str | None
    best_step_s: float | None
    racing: tuple[str, ...]
    out: Mapping[str, str]
    spent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceOutcome:
    """``standings`` are in the order of the candidates; ``why`` says what ended the race. No winner: none ran.

    ``untimed`` are those that no time was left for.
    """

    winner: str | None
    why: str
    rounds: int
    standings: tuple[Standing, ...]
    untimed: tuple[str, ...] = ()


def race(
    candidates: Sequence[str],
    measure: Measure,
    settings: RaceSettings,
    on_round: Callable[[RoundReport], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RaceOutcome:
    """Races ``candidates``, the simplest first among equals, and says who won and why the others did not.

    ``measure(name, abort_after_step_s)`` runs one trial and gives its steady steps, or status ``eliminated`` when a
    step took longer than that. Rounds go forth and back (A B C, C B A, …), so that a machine that slowly warms up
    favours nobody. Where time is short the first round ends with whom it was too short for, so that the last
    ``candidates`` are left out; a later round that the time left doesn't hold is run with the leaders alone.
    """
    running = _Race(candidates, measure, settings, clock)
    why = f"{settings.rounds} rounds are over"
    for number in range(1, settings.rounds + 1):
        entrants = running.entrants(number)
        if not entrants:
            why = f"the time of {format_seconds(settings.budget_s)} is over"
            break
        running.run_round(number, entrants)
        if on_round is not None:
            on_round(running.report(number))
        if running.is_decided():
            why = "no other candidate is left"
            break
    return running.outcome(why)


class _Race:
    def __init__(
        self, candidates: Sequence[str], measure: Measure, settings: RaceSettings, clock: Callable[[], float]
    ) -> None:
        self.settings, self.measure, self.clock = settings, measure, clock
        self.order = {name: place for place, name in enumerate(candidates)}
        self.racing = list(candidates)
        self.began_s = clock()
        self.laps: dict[str, dict[int, float]] = {name: {} for name in candidates}
        self.counted: dict[str, dict[int, float]] = {}
        self.aborts: dict[str, list[str]] = {name: [] for name in candidates}
        self.trial_s: dict[str, float] = {}
        self.out: dict[str, tuple[Status, str]] = {}
        self.untimed: list[str] = []
        self.best: str | None = None
        self.best_s: float | None = None
        self.round = 0

    def entrants(self, number: int) -> list[str]:
        """Who runs the next round: the leaders that time is left for, at least two, in the round's order."""
        left_s = math.inf if self.settings.budget_s is None else self.settings.budget_s - self._spent_s()
        if number == 1:
            return list(self.racing)
        known = levels(self.counted)
        leaders = sorted(self.racing, key=lambda name: known.get(name, math.inf))
        fitting = []
        for name in leaders:
            left_s -= self.trial_s[name]
            if left_s < 0:
                break
            fitting.append(name)
        least = 1 if len(self.racing) == 1 or not known else 2
        if len(fitting) < least:
            return []
        return sorted(fitting, key=lambda name: self.order[name], reverse=number % 2 == 0)

    def run_round(self, number: int, entrants: Sequence[str]) -> None:
        self.round = number
        for name in entrants:
            if number == 1 and not self._time_for_first(name):
                continue
            self._run_trial(name, number)
        self.counted = undisturbed(self.laps)
        self._look()

    def is_decided(self) -> bool:
        """Whether another round could change nothing: the last candidate has run, or nobody is left."""
        return not self.racing or (len(self.racing) == 1 and bool(self.laps[self.racing[0]]))

    def report(self, number: int) -> RoundReport:
        return RoundReport(
            round=number,
            best=self.best,
            best_step_s=self.best_s,
            racing=tuple(self.racing),
            out={name: reason for name, (_, reason) in self.out.items()},
            spent_s=self._spent_s(),
        )

    def outcome(self, why: str) -> RaceOutcome:
        noise = noise_of(self.counted)
        standings = tuple(self._standing(name, noise) for name in self.order)
        return RaceOutcome(
            winner=self.best, why=why, rounds=self.round, standings=standings, untimed=tuple(self.untimed)
        )

    def _spent_s(self) -> float:
        return self.clock() - self.began_s

    def _time_for_first(self, name: str) -> bool:
        """In the first round nobody's trial is known yet: the mean of those before it stands for it.

        Time for a second round of two is kept back: one round alone says nothing of the noise.
        """
        if self.settings.budget_s is None or not self.trial_s:
            return True
        kept_back = 2 if self.settings.rounds > 1 and len(self.trial_s) > 1 else 0
        expected_s = (1 + kept_back) * statistics.fmean(self.trial_s.values())
        if self._spent_s() + expected_s <= self.settings.budget_s:
            return True
        self.untimed.append(name)
        self._drop(name, "skipped", f"no time was left of {format_seconds(self.settings.budget_s)}")
        return False

    def _run_trial(self, name: str, number: int) -> None:
        began_s = self.clock()
        found = self.measure(name, self._abort_after_s(name))
        self.trial_s[name] = self.clock() - began_s
        if found.status == "ok":
            step_s = statistics.median(found.step_s)
            self.laps[name][number] = math.log(step_s)
            if number == 1 and (self.best_s is None or step_s < self.best_s):
                self.best, self.best_s = name, step_s
        elif found.status == "eliminated":
            self.aborts[name].append(found.reason or self._too_slow())
            if len(self.aborts[name]) >= _ABORTS:
                self._drop(name, "eliminated", f"stopped twice: {self.aborts[name][-1]}")
        else:
            self._drop(name, found.status, found.reason or "")

    def _abort_after_s(self, name: str) -> float | None:
        if self.best_s is not None:
            return None if name == self.best else self.settings.abort_ratio * self.best_s
        predicted_s = self.settings.predicted_step_s.get(name)
        # One wrong prediction must not leave a race without a winner: the second trial has no such limit.
        return None if predicted_s is None or self.aborts[name] else self.settings.doubtful_ratio * predicted_s

    def _too_slow(self) -> str:
        if self.best is None:
            return f"its steps took more than {self.settings.doubtful_ratio:g} × their prediction"
        return f"its steps took more than {self.settings.abort_ratio:g} × those of {self.best}"

    def _look(self) -> None:
        """Chooses the best so far and drops who can't beat it by more than a tie any more."""
        self._choose_best()
        noise = noise_of(self.counted)
        if noise is None or self.best is None:
            return
        looks = (len(self.order) - 1) * (self.settings.rounds - 1)
        for name in list(self.racing):
            found = compare(self.counted, name, self.best, noise) if name != self.best else None
            if found is None:
                continue
            low, _ = found.bounds(self.settings.doubt / looks)
            if low > -math.log(1 + self.settings.tolerance):
                self._drop(name, "eliminated", self._why_dropped(found, certain=low > 0))

    def _choose_best(self) -> None:
        """The simplest candidate whose time is within half a tie of the least that anybody had.

        The least counts also when its candidate is out, so that a chain of ties can't lead away from it.
        """
        known = levels(self.counted)
        valid = {name: level for name, level in known.items() if name in self.racing or self._tied_out(name)}
        in_race = [name for name in self.racing if name in known]
        if not in_race:
            self.best = self.best_s = None
            return
        least = min(in_race, key=lambda name: known[name])
        near = min(valid.values()) + math.log(1 + self.settings.tolerance / 2)
        equals = [name for name in in_race if known[name] <= near]
        self.best = min(equals, key=lambda name: self.order[name], default=least)
        self.best_s = math.exp(known[self.best])

    def _tied_out(self, name: str) -> bool:
        return name in self.out and self.out[name][0] == "eliminated"

    def _why_dropped(self, found: Comparison, certain: bool) -> str:
        tie = "" if certain else f", at best {self.settings.tolerance:.0%} faster: a tie"
        return f"{_ratio(found)} × the time of {self.best} after {self.round} rounds{tie}"

    def _drop(self, name: str, status: Status, reason: str) -> None:
        self.racing.remove(name)
        self.out[name] = (status, reason)
        if name == self.best:
            self._choose_best()

    def _standing(self, name: str, noise: Noise | None) -> Standing:
        laps, counted = self.laps[name], self.counted.get(name, {})
        still_in: tuple[Status, str | None] = ("ok", None)
        status, reason = self.out.get(name, still_in)
        if not laps and name in self.racing:  # it was stopped once and had no second chance
            status, reason = "eliminated", self.aborts[name][-1]
        if not laps:
            return Standing(name=name, status=status, reason=reason)
        seconds = [math.exp(each) for each in counted.values()]
        ratio, error = self._ratio_to_best(name, noise)
        return Standing(
            name=name,
            status=status,
            reason=reason,
            rounds_s=tuple(math.exp(each) for each in laps.values()),
            held_up=len(laps) - len(counted),
            mean_s=statistics.fmean(seconds),
            sd_s=statistics.stdev(seconds) if len(seconds) > 1 else None,
            ratio=ratio,
            ratio_error=error,
        )

    def _ratio_to_best(self, name: str, noise: Noise | None) -> tuple[float | None, float | None]:
        """Over the rounds that both were in; the error is unknown after a single round."""
        if self.best is None or name == self.best:
            return None, None
        pairs = pairs_of(self.counted, name, self.best)
        ratio = math.exp(statistics.fmean(pairs)) if pairs else None
        found = compare(self.counted, name, self.best, noise) if noise else None
        return ratio, ratio * found.error if ratio and found else None


def _ratio(found: Comparison) -> str:
    ratio = math.exp(found.log_ratio)
    return f"{ratio:.2f} ± {ratio * found.error:.2f}"
