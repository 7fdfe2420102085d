"""A heat: one round on stacks cut short, which only decides who is timed whole."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roost.tune.cuts import Cut, Faithful
from roost.tune.figures import undone_step_s
from roost.tune.recorded import RecordedTrials
from roost.tune.records import PLAIN, Candidate, HeatRecord, Status

# Who takes more than this times the best's time in a heat is out. What may be false in a heat lies below it together:
# a share of copied blocks that is a quarter off, a slow first run, and an order of blocks that hides a few copies.
HEAT_MARGIN = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatOutcome:
    """Who is out, with the reason, and times over the best's. With a ``problem`` the model can't be run cut short."""

    cut: Cut
    out: Mapping[str, tuple[Status, str]]
    ratios: Mapping[str, float]
    problem: str | None = None

    @property
    def record(self) -> HeatRecord | None:
        """For the results; None where nothing was judged."""
        if self.problem is not None:
            return None
        return HeatRecord(blocks=self.cut.blocks, of_blocks=self.cut.of_blocks, margin=HEAT_MARGIN, ratios=self.ratios)

    @property
    def note(self) -> str:
        """What the reader of the results must know of it."""
        if self.problem is not None:
            return f"the model can't be run with stacks cut short ({self.problem}), so there was no heat."
        return (
            f"a heat on {self.cut} came first: who took more than {HEAT_MARGIN:g} × the best's time there was not timed"
            " whole."
        )


def too_slow(times_s: Mapping[str, float], margin: float = HEAT_MARGIN) -> tuple[dict[str, float], frozenset[str]]:
    """Each time over the least one, and who is beyond ``margin``."""
    best_s = min(times_s.values(), default=0.0)
    ratios = {name: each / best_s for name, each in times_s.items()}
    return ratios, frozenset(name for name, ratio in ratios.items() if ratio > margin)


def run_heat(
    candidates: Sequence[Candidate], faithful: Faithful, trials: RecordedTrials, limit_s: float, plain: Candidate | None
) -> HeatOutcome:
    """Runs each candidate once, cut short, as long as time is left; who is not reached goes on unjudged.

    ``plain``, if it is none of them, runs first for its digest alone. Diffusers alone is never out for its time, since
    its whole output is the reference. What crashes goes on: whether that was the cut's fault, a whole trial tells.
    """
    return _Heat(faithful.cut, trials).run([each for each in candidates if each.name in faithful.names], limit_s, plain)


def in_heat_order(candidates: Sequence[Candidate], heat: HeatOutcome) -> list[Candidate]:
    """Those who go on, the fastest in the heat first: time may be too short for all of them.

    Who is within a tenth of another keeps the order of promise, and who was not judged keeps the place.
    """
    left = [each for each in candidates if each.name not in heat.out]
    judged = [each for each in left if each.name in heat.ratios]
    sorted_ones = iter(sorted(judged, key=lambda each: round(heat.ratios[each.name], 1)))
    return [next(sorted_ones) if each.name in heat.ratios else each for each in left]


class _Heat:
    def __init__(self, cut: Cut, trials: RecordedTrials) -> None:
        self.cut, self.trials = cut, trials
        self.times_s: dict[str, float] = {}
        self.out: dict[str, tuple[Status, str]] = {}
        self.seconds: list[float] = []

    def run(self, candidates: Sequence[Candidate], limit_s: float, plain: Candidate | None) -> HeatOutcome:
        first = [plain] if plain is not None else []
        for candidate in (*first, *candidates):
            if self.seconds and sum(self.seconds) + statistics.fmean(self.seconds) > limit_s:
                break
            problem = self._trial(candidate, bound=candidate is not plain)
            if problem is not None:
                return HeatOutcome(cut=self.cut, out={}, ratios={}, problem=problem)
        return self._outcome()

    def _trial(self, candidate: Candidate, *, bound: bool) -> str | None:
        """Runs one; what the first one crashes of is the cut's fault."""
        began_s = self.trials.clock()
        result = self.trials.run(candidate, 0, self._abort_after_s(), bound=bound, cut=self.cut)
        self.seconds.append(self.trials.clock() - began_s)
        if result.status == "crashed":
            return result.reason if len(self.seconds) == 1 else None
        if not bound:
            return None
        if result.status == "ok":
            world = self.trials.trials.world
            self.times_s[candidate.name] = undone_step_s(result, self.cut, world.steps, world.trial_steps)
        elif candidate.name != PLAIN:
            self.out[candidate.name] = result.status, f"heat on {self.cut}: {result.reason}"
        return None

    def _abort_after_s(self) -> float | None:
        """A step as long as the best's with its share of everything else, and that times the margin."""
        return HEAT_MARGIN * min(self.times_s.values()) / self.cut.scale if self.times_s else None

    def _outcome(self) -> HeatOutcome:
        ratios, slow = too_slow(self.times_s)
        for name in slow - {PLAIN}:
            self.out[name] = "eliminated", f"heat on {self.cut}: {ratios[name]:.2f} × the best"
        return HeatOutcome(cut=self.cut, out=self.out, ratios=ratios)
