"""One component by itself: what its uses take where others' uses are gaps, in which it stays or has to leave."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from roost.facts.stage import StageKey
from roost.planner.cost.simulator import MovedWeights, Schedule, StageTimes, UseCost, simulate
from roost.trace import Trace

_OTHERS = "(others)"
_GAP, _NOBODYS = StageKey(_OTHERS, "beside"), StageKey("", "beside")
_UNLIMITED = 1 << 60

Calls = tuple[tuple[int, int], ...]  # index into the uses, and how often in a row


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Where a component waits for its next run: after which of its uses, while which of others' run.

    It comes up ``times`` in all generations: in each of them, or, where it is the ``last`` one, between two of them.
    """

    component: str
    after: frozenset[int]
    others: frozenset[int]
    times: int
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """What it costs, at the least, to leave in the gap of that index, with what is on the device until then."""

    gap: int
    held_bytes: int
    seconds: float


class Alone:
    """Simulates components of one trace alone; twins with the same weights and one use are simulated once."""

    def __init__(self, trace: Trace, generations: int) -> None:
        self.generations = generations
        self._runs: dict[str, list[Calls]] = {}
        self._order: dict[str, list[int]] = {}  # of each component's gaps, one after each of its runs
        self._twins: dict[tuple[MovedWeights, UseCost], tuple[int, float, float | None]] = {}
        self.gaps = self._gaps(trace)

    @property
    def once(self) -> bool:
        """Whether every component's uses are one run of one generation, so that nothing waits for its next."""
        return not self.gaps

    def fewest_passes(self, component: str) -> int:
        """The fewest passes in a row that follow one another; none where it is never used."""
        return min((sum(count for _, count in run) for run in self._runs.get(component, ())), default=0)

    def first_and_next_s(
        self, weights: MovedWeights, uses: tuple[UseCost, ...], leaving: Collection[int] = ()
    ) -> tuple[float, float]:
        """Seconds of the first generation and of a later one, when it leaves in these gaps and stays in the others."""
        calls = tuple(self._calls(weights, len(uses), leaving))
        if weights.stays:
            compute_s = sum(uses[index].compute_s * count for index, count in calls if index < len(uses))
            return compute_s, compute_s
        generations = 2 if weights.linger and self.generations > 1 else 1
        seconds = self._simulated_s(_schedule(weights, uses, calls), generations)
        return seconds[0], seconds[-1]

    def total_s(self, weights: MovedWeights, uses: tuple[UseCost, ...], leaving: Collection[int]) -> float:
        """Seconds of all generations, with the ways back of what leaves in these gaps."""
        first_s, next_s = self.first_and_next_s(weights, uses, leaving)
        back_s = weights.back_s * sum(self.gaps[gap].times for gap in leaving)
        return first_s + (self.generations - 1) * next_s + back_s

    def leavings(self, weights: MovedWeights, uses: tuple[UseCost, ...]) -> tuple[Leaving, ...]:
        """What it costs at the least to leave in each of its gaps, whatever it does in the others."""
        own = frozenset() if weights.stays else frozenset(self._waits(weights))
        if not own:
            return ()

        def seconds(*leaving: int) -> float:
            return self.total_s(weights, uses, leaving)

        stays_s, leaves_s = seconds(), seconds(*own)
        found = []
        for gap in sorted(own):
            added_s = leaves_s - stays_s
            if len(own) > 1:
                added_s = min(seconds(gap) - stays_s, leaves_s - seconds(*(own - {gap})))
            found.append(Leaving(gap=gap, held_bytes=self._held_bytes(weights, uses, gap), seconds=max(0.0, added_s)))
        return tuple(found)

    def entering_bytes(self, weights: MovedWeights, uses: tuple[UseCost, ...]) -> tuple[int, ...]:
        """For each gap the most room that the component's own uses in it need, weights that come for them included."""
        moved = 0 if weights.stays else weights.active_bytes
        return tuple(
            max(
                (
                    moved + uses[index].activation_bytes + uses[index].unusable_bytes
                    for index in gap.others
                    if uses[index].component == weights.component
                ),
                default=0,
            )
            for gap in self.gaps
        )

    def _gaps(self, trace: Trace) -> tuple[Gap, ...]:
        """Every gap of every component; equal ones of one component are one."""
        runs = _runs(trace)
        places: dict[str, list[int]] = {}
        for place, (name, calls) in enumerate(runs):
            places.setdefault(name, []).append(place)
            self._runs.setdefault(name, []).append(calls)
        times: dict[tuple[str, frozenset[int], frozenset[int], bool], int] = {}
        for name, own in places.items():
            order = []
            for place, following in zip(own, (*own[1:], own[0] + len(runs)), strict=True):
                others = frozenset(_uses_of(runs[at % len(runs)][1] for at in range(place + 1, following)))
                last = following >= len(runs)
                key = name, frozenset(_uses_of([runs[place][1]])), others, last
                often = self.generations - 1 if last else self.generations
                if others and often:
                    times[key] = times.get(key, 0) + often
                order.append(key)
            self._order[name] = [list(times).index(key) if key in times else -1 for key in order]
        return tuple(
            Gap(component=name, after=after, others=others, times=often, last=last)
            for (name, after, others, last), often in times.items()
        )

    def _waits(self, weights: MovedWeights) -> Iterator[int]:
        """The gaps that it may stay through: into the next generation only where it lingers."""
        for gap in self._order.get(weights.component, ()):
            if gap >= 0 and (weights.linger or not self.gaps[gap].last):
                yield gap

    def _calls(self, weights: MovedWeights, uses: int, leaving: Collection[int]) -> Iterator[tuple[int, int]]:
        """Its own part of the sequence, and in each gap the use of nobody that lets it stay or makes it leave."""
        waits = set(self._waits(weights))
        runs, order = self._runs.get(weights.component, []), self._order.get(weights.component, [])
        for run, gap in zip(runs, order, strict=True):
            yield from run
            if gap in waits:
                yield uses + (gap in leaving), 1

    def _held_bytes(self, weights: MovedWeights, uses: tuple[UseCost, ...], gap: int) -> int:
        """What is certainly on the device: of what is held from its first use on, what the uses before have touched."""
        if not weights.hold:
            return weights.active_bytes
        touched = {block for index in self.gaps[gap].after for block, _ in uses[index].blocks}
        return weights.trunk_bytes + sum(weights.block_bytes[block] for block in touched)

    def _simulated_s(self, schedule: Schedule, generations: int) -> list[float]:
        """Seconds of each generation; a twin with the same weights and one use, like an expert, is remembered."""
        own = [index for index, _ in schedule.sequence]
        if len(own) > 1 or generations > 1 or not own:
            return [_without_gaps(each) for each in simulate(schedule, generations=generations).stages]
        (index, calls), (weights, _) = schedule.sequence[0], schedule.weights.values()
        twin = replace(weights, component=""), replace(schedule.uses[index], component="", stage=_NOBODYS)
        if twin not in self._twins or self._twins[twin][0] > calls:
            timeline = simulate(schedule)
            steady_s = timeline.stages[0][schedule.uses[index].stage].steady.seconds
            # Without a skipped pass the last one need not be steady.
            self._twins[twin] = calls, timeline.seconds, steady_s if timeline.simulated_uses < calls else None
        known, seconds, steady = self._twins[twin]
        if known != calls and steady is None:
            return [simulate(schedule).seconds]
        return [seconds + (calls - known) * (steady or 0.0)]


def _runs(trace: Trace) -> list[tuple[str, Calls]]:
    """The sequence as whose uses run without another's between them."""
    grouped = groupby(trace.sequence, key=lambda call: trace.uses[call[0]].component)
    return [(name, tuple(calls)) for name, calls in grouped]


def _uses_of(runs: Iterable[Sequence[tuple[int, int]]]) -> Iterator[int]:
    for calls in runs:
        yield from (index for index, _ in calls)


def _schedule(weights: MovedWeights, uses: tuple[UseCost, ...], calls: Calls) -> Schedule:
    copies_s = weights.trunk_s + sum(weights.block_s) + weights.back_s
    gap = UseCost(component=_OTHERS, stage=_GAP, before_s=2 * copies_s + 1, blocks=(), after_s=0.0, activation_bytes=0)
    nothing = MovedWeights(
        component=_OTHERS, strategy="resident", trunk_bytes=0, block_bytes=(), trunk_s=0.0, block_s=()
    )
    return Schedule(
        weights={weights.component: weights, _OTHERS: nothing},
        uses=(*uses, gap, replace(gap, activation_bytes=2 * _UNLIMITED)),
        sequence=calls,
        budget_bytes=_UNLIMITED,
    )


def _without_gaps(stages: Mapping[StageKey, StageTimes]) -> float:
    return sum(stage.seconds for key, stage in stages.items() if key != _GAP)
