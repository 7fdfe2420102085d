"""How long trials take, before they ran: what a bench says first, and whether it begins with a heat."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roost.tune.cuts import Faithful
from roost.tune.records import Candidate, TrialResult
from roost.tune.trials import WARM_UP_STEPS, TrialWorld

# Loading the libraries, by the clock of machines with a warm page cache.
_START_S = 10.0
# A heat may take so much of the time that is left.
HEATS_SHARE = 2 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCost:
    """Seconds of a trial; of those, ``steps_s`` are denoising steps, which alone are surely shorter in a heat."""

    seconds: float
    steps_s: float

    def cut(self, scale: float) -> float:
        """Seconds of the same trial in a heat, at most."""
        return self.seconds - self.steps_s * (1 - 1 / scale)


def predicted_cost(candidate: Candidate, world: TrialWorld) -> TrialCost:
    """From the plan's prediction."""
    predicted = candidate.plan.predicted if candidate.plan else None
    if predicted is None:
        return TrialCost(seconds=_START_S, steps_s=0.0)
    beside_s = predicted.next_s.mid - world.steps * predicted.step_s.mid
    generations = 2 if world.warm_up else 1
    steps_s = generations * world.trial_steps * predicted.step_s.mid
    return TrialCost(seconds=_START_S + predicted.load_s.mid + generations * beside_s + steps_s, steps_s=steps_s)


def measured_cost(took_s: float, result: TrialResult, world: TrialWorld) -> TrialCost:
    """From a trial that took ``took_s``."""
    steps = world.trial_steps + (min(WARM_UP_STEPS, world.trial_steps) if world.warm_up else 0)
    return TrialCost(seconds=took_s, steps_s=min(took_s, steps * statistics.median(result.step_seconds)))


def all_rounds_s(first_round_s: float, rounds: int) -> float:
    """Of all rounds, when about half of the field runs the later ones."""
    return first_round_s * (1 + (rounds - 1) / 2)


def heat_s(costs: Mapping[str, TrialCost], faithful: Faithful) -> float:
    """Of a heat of those who can be judged by one."""
    return sum(costs[name].cut(faithful.cut.scale) for name in faithful.names)


def heat_is_due(costs: Mapping[str, TrialCost], faithful: Faithful, left_s: float) -> bool:
    """Whether the time that is left doesn't hold one whole round, and a heat takes little of it.

    Where it holds one, a heat gains nothing: the race stops whoever is far slower at the second step.
    """
    whole_s = sum(each.seconds for each in costs.values())
    return whole_s > left_s and heat_s(costs, faithful) <= HEATS_SHARE * left_s


def each_step_s(racers: Sequence[Candidate], steps: int) -> dict[str, float]:
    """Predicted seconds of a generation for each step, as measured ones are counted."""
    known = {each.name: each.predicted for each in racers if each.predicted is not None}
    return {name: each.next_s.mid / steps for name, each in known.items()}
