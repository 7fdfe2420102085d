"""Fields of candidates with planted step times, on a made-up machine that drifts, stumbles and starts slowly."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from roost.plan.results import Status
from roost.tune.race.race import RaceOutcome, RaceSettings, RoundReport, race
from roost.tune.results.records import Measurement

SETUP_S = 3.0  # of a trial: the child starts, weights load, the first steps warm up
STEPS = 5


@dataclass
class Machine:
    """A clock and a source of noise. Trials of it cost ``SETUP_S`` and their steps, and the clock is their sum.

    ``sigma`` is the spread of a trial, ``drift`` what a hundred seconds add to every step, ``stumbles`` the share of
    trials that other work slows down, ``slow_first`` the factor of one candidate's first trial.
    """

    step_s: Mapping[str, float]
    seed: int = 0
    sigma: float = 0.0
    drift: float = 0.0
    stumbles: float = 0.0
    slow_first: Mapping[str, float] = field(default_factory=dict)
    now_s: float = 0.0
    trials: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def clock(self) -> float:
        return self.now_s

    def measure(self, name: str, abort_after_step_s: float | None) -> Measurement:
        step_s = self.step_s[name] * self._noise(name)
        self.trials.append(name)
        self.now_s += SETUP_S
        if abort_after_step_s is not None and step_s > abort_after_step_s:
            self.now_s += step_s
            return Measurement(status="eliminated")
        steps = tuple(step_s * math.exp(self.chance.gauss(0, self.sigma)) for _ in range(STEPS))
        warming_up = (steps[0] * (1 + 5 * self.sigma), *steps[1:])
        self.now_s += sum(warming_up)
        return Measurement(status="ok", step_s=warming_up)

    def _noise(self, name: str) -> float:
        factor = math.exp(self.chance.gauss(0, self.sigma) + self.drift * self.now_s / 100)
        if self.chance.random() < self.stumbles:
            factor *= self.chance.uniform(1.08, 1.5)
        return factor if name in self.trials else factor * self.slow_first.get(name, 1.0)


def messy_machine(step_s: Mapping[str, float], seed: int, sigma: float) -> Machine:
    """A machine with everything that goes wrong in practice; the first trial of a candidate drawn by chance is slow."""
    chance = random.Random(f"machine {seed}")
    return Machine(
        step_s,
        seed=seed,
        sigma=sigma,
        drift=chance.uniform(-0.01, 0.02),
        stumbles=0.03,
        slow_first={chance.choice(sorted(step_s)): chance.uniform(1.1, 1.6)},
    )


def shuffled(ratios: Sequence[float], seed: int) -> dict[str, float]:
    """Candidates ``a``, ``b``, … with these step times in an order of chance."""
    times = random.Random(f"order {seed}").sample(list(ratios), len(ratios))
    return {chr(ord("a") + place): each for place, each in enumerate(times)}


def by_prediction(step_s: Mapping[str, float], seed: int, off: float) -> dict[str, float]:
    """The same candidates, the best predicted first, where ``off`` is the spread of what is predicted of each."""
    chance = random.Random(f"prediction {seed}")
    predicted = {name: each * math.exp(chance.gauss(0, off)) for name, each in step_s.items()}
    return {name: step_s[name] for name in sorted(step_s, key=predicted.__getitem__)}


def run_race(
    machine: Machine,
    on_round: Callable[[RoundReport], None] | None = None,
    **settings: object,
) -> RaceOutcome:
    """A race of all the machine's candidates, in their order, by its clock."""
    return race(list(machine.step_s), machine.measure, RaceSettings(**settings), on_round, machine.clock)  # type: ignore[arg-type]


def time_exhaustively(machine: Machine, rounds: int) -> str:
    """Every candidate whole in every round; the name of the one with the least mean."""
    samples = {name: [] for name in machine.step_s}
    for _ in range(rounds):
        for name, found in samples.items():
            found.append(sorted(machine.measure(name, None).step_s)[STEPS // 2])
    return min(samples, key=lambda name: sum(samples[name]))


def whole_round_s(machine: Machine) -> float:
    """What one trial of every candidate takes when nothing goes wrong."""
    return sum(SETUP_S + STEPS * each for each in machine.step_s.values())


def scripted(rounds: Mapping[str, Sequence[float | Status]]) -> Callable[[str, float | None], Measurement]:
    """A ``measure`` that answers each candidate's n-th trial with its n-th entry: a step time, or a failure."""
    left = {name: iter(entries) for name, entries in rounds.items()}

    def measure(name: str, abort_after_step_s: float | None) -> Measurement:
        entry = next(left[name])
        if isinstance(entry, str):
            return Measurement(status=entry, reason=f"{name} is {entry}")
        return Measurement(status="ok", step_s=(entry,))

    return measure
