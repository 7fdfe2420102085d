"""Fields of candidates with planted step times, on a made-up machine that drifts, stumbles and starts slowly."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import SimpleNamespace

from roost.tune.cuts import Cut, Faithful, cut_of
from roost.tune.expected import HEATS_SHARE
from roost.tune.heats import HeatOutcome, in_heat_order, run_heat
from roost.tune.race import RaceOutcome, RaceSettings, RoundReport, race
from roost.tune.records import Candidate, Measurement, StageTime, Status, TrialResult
from worlds import component

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


def scripted(rounds: Mapping[str, Sequence[float | Status]]) -> Callable[[str, float | None], Measurement]:
    """A ``measure`` that answers each candidate's n-th trial with its n-th entry: a step time, or a failure."""
    left = {name: iter(entries) for name, entries in rounds.items()}

    def measure(name: str, abort_after_step_s: float | None) -> Measurement:
        entry = next(left[name])
        if isinstance(entry, str):
            return Measurement(status=entry, reason=f"{name} is {entry}")
        return Measurement(status="ok", step_s=(entry,))

    return measure


@dataclass
class HeatMachine(Machine):
    """A machine whose candidates can also run with a quarter of their blocks.

    ``step_s`` is the sum of three: a candidate's ``beside_s``, other stages' share, which no cut shortens; ``trunk_s``,
    what every candidate's step takes outside blocks; and its blocks. ``off`` is the factor by which a cut changes the
    time of a candidate's blocks, beyond their number.
    """

    trunk_s: float = 0.0
    beside_s: Mapping[str, float] = field(default_factory=dict)
    off: Mapping[str, float] = field(default_factory=dict)

    def run_heat(self, budget_s: float = math.inf) -> HeatOutcome:
        """A heat of all candidates, in their order, in its share of the time."""
        faithful = Faithful(cut=QUARTER, names=frozenset(self.step_s))
        return run_heat(_candidates(self), faithful, _HeatTrials(self), HEATS_SHARE * budget_s, None)  # type: ignore[arg-type]

    def measure_cut(self, name: str, abort_after_s: float | None) -> TrialResult:
        beside_s = self.beside_s.get(name, 0.0)
        blocks_s = (self.step_s[name] - beside_s - self.trunk_s) * self.off.get(name, 1.0) / QUARTER.scale
        factor = self._noise(name)
        self.now_s += SETUP_S
        first_s = (self.trunk_s + blocks_s) * factor
        if abort_after_s is not None and first_s > abort_after_s:
            self.now_s += 2 * first_s
            return TrialResult(status="eliminated", reason="a step took longer")
        steps = tuple(first_s * math.exp(self.chance.gauss(0, self.sigma)) for _ in range(STEPS))
        total_s = sum(steps) + STEPS * beside_s * factor
        self.now_s += total_s
        stages = (
            StageTime(name="denoise", component="transformer", seconds=sum(steps), peak_bytes=1),
            StageTime(name="decode", component="vae", seconds=total_s - sum(steps), peak_bytes=1),
        )
        return TrialResult(status="ok", total_s=total_s, step_seconds=steps, stages=stages)


class _HeatTrials:
    """Stands in for recorded trials."""

    def __init__(self, machine: HeatMachine) -> None:
        self.machine, self.clock = machine, machine.clock
        self.trials = SimpleNamespace(world=SimpleNamespace(steps=STEPS, trial_steps=STEPS))

    def run(
        self, candidate: Candidate, round: int, abort_after_s: float | None, *, bound: bool, cut: Cut
    ) -> TrialResult:
        return self.machine.measure_cut(candidate.name, abort_after_s)


QUARTER = cut_of((component("transformer", 4000, blocks=40),), 4)


def whole_round_s(machine: Machine) -> float:
    """What one trial of every candidate takes when nothing goes wrong."""
    return sum(SETUP_S + STEPS * each for each in machine.step_s.values())


def run_heat_and_race(machine: HeatMachine, budget_s: float, rounds: int) -> RaceOutcome:
    """A heat, and a race of those who go on in what it leaves of the time."""
    heat = machine.run_heat(budget_s)
    racing = [each.name for each in in_heat_order(_candidates(machine), heat)]
    settings = RaceSettings(rounds=rounds, budget_s=budget_s - machine.now_s)
    return race(racing, machine.measure, settings, clock=machine.clock)


def _candidates(machine: Machine) -> list[Candidate]:
    return [Candidate(name=name, strategy=name) for name in machine.step_s]


def heat_machine(step_s: Mapping[str, float], seed: int, sigma: float) -> HeatMachine:
    """A messy machine on which cuts are as false as ``cuts.keeps_proportions`` lets them be.

    Up to two fifths of the best's step are outside its blocks, up to a fifth of anybody's is beside the denoising. A
    cut makes one candidate in two seem up to a quarter slower or, since more copies hide behind fewer blocks, faster.
    """
    messy, chance = messy_machine(step_s, seed, sigma), random.Random(f"heat {seed}")
    return HeatMachine(
        **{each.name: getattr(messy, each.name) for each in fields(Machine)},
        trunk_s=chance.uniform(0, 0.4) * min(step_s.values()),
        beside_s={name: chance.uniform(0, 0.2) * each for name, each in step_s.items()},
        off={name: chance.uniform(0.75, 1.25) for name in step_s if chance.random() < 0.5},
    )
