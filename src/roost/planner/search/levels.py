"""The best plans under every VRAM limit, and which of those that are as fast is taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from roost.planner.search.option import Combination, Option
from roost.planner.search.pricing import Pricer
from roost.planner.search.solver import Column, Limits, Pace, fastest, simplest

# A plan that takes no more than this times the best one's seconds is as good, if also its later generations do: what a
# slow load hides, every later picture would pay.
NOISE = 1.02
# Less than this share of the seconds is nothing that anyone would notice.
NOTHING = 0.001
# Of two plans as good as each other, one that saves less than this in each later generation isn't worth more parts.
_SAME_NEXT = 1.001


def as_good_as(best: Combination) -> Pace:
    """The most seconds that are as good as the best plan's."""
    return Pace(seconds=NOISE * best.seconds, next_s=NOISE * best.next_s)


class Levels:
    """The best plans under every VRAM limit; one that fits less than its limit is the best under less too."""

    def __init__(self, pricer: Pricer, options: Mapping[str, Column], limits: Limits) -> None:
        self.pricer, self.options, self.limits = pricer, options, limits
        self._fastest: list[tuple[int, Combination | None]] = []
        self._simplest: list[tuple[int, Combination | None]] = []

    def fastest(self, vram_bytes: int) -> Combination | None:
        """The fastest plan within the limit."""
        known = _known(self._fastest, vram_bytes)
        if known is None:
            within_it = [best for _, best in self._fastest if best is not None and best.vram_bytes <= vram_bytes]
            start = min(within_it, key=lambda each: each.seconds, default=None)
            below_s = start.seconds if start else math.inf
            known = vram_bytes, fastest(self.pricer, self.options, self.at(vram_bytes), below_s) or start
            self._fastest.append(known)
        return known[1]

    def worthwhile(self, limits: Limits) -> Combination | None:
        """The fastest plan within other limits, if anyone would notice how much faster it is; else the fastest here."""
        best = self.fastest(self.limits.vram_bytes)
        below_s = (1 - NOTHING) * best.seconds if best else math.inf
        return fastest(self.pricer, self.options, limits, below_s) or best

    def simplest(self, vram_bytes: int) -> Combination | None:
        """The simplest plan that is as fast as the fastest within the limit, but for noise."""
        best = self.fastest(vram_bytes)
        if best is None:
            return None
        known = _known(self._simplest, vram_bytes)
        if known is None or known[1] is None or not as_good_as(best).holds(known[1]):
            known = vram_bytes, simplest(self.pricer, self.options, self.at(vram_bytes), as_good_as(best))
            self._simplest.append(known)
        return known[1]

    def at(self, vram_bytes: int) -> Limits:
        return replace(self.limits, vram_bytes=vram_bytes)

    def best(self) -> Combination | None:
        """The plan of least seconds; of those as good, what stays where it can, then the least memory."""
        most_bytes = self.limits.vram_bytes
        best, simple = self.fastest(most_bytes), self.simplest(most_bytes)
        if best is None or simple is None:
            return None
        return self._staying(self._lower(simple, as_good_as(best)), as_good_as(best))

    def leanest(self, max_slowdown: float) -> Combination | None:
        """The plan of the least peak that takes at most so many times the fastest one's seconds."""
        best = self.fastest(self.limits.vram_bytes)
        if best is None:
            return None
        allowed_s = max_slowdown * best.seconds
        least_bytes = self._least(Pace(seconds=allowed_s, next_s=math.inf))
        quickest = self.fastest(least_bytes) or best
        good = replace(as_good_as(quickest), seconds=min(allowed_s, NOISE * quickest.seconds))
        return simplest(self.pricer, self.options, self.at(least_bytes), good) or best

    def _lower(self, simple: Combination, good: Pace) -> Combination:
        """Of the same strategies, as good, the least peak, then the quicker later generations."""
        alike = Levels(self.pricer, self._only(_alike, simple), self.limits)
        least_bytes = alike._least(good)
        quickest = alike.fastest(least_bytes)
        plain = simplest(self.pricer, alike.options, alike.at(least_bytes), good)
        if quickest is None or plain is None:
            return simple
        return plain if plain.next_s <= _SAME_NEXT * quickest.next_s else quickest

    def _staying(self, taken: Combination, good: Pace) -> Combination:
        """What is moved though it could stay has to gain by it."""
        for index, column in enumerate(self.options.values()):
            residents = [each for each in column.options if _stays(each, taken.options[index])]
            if taken.options[index].placement.strategy != "resident" and residents:
                other = self.pricer.combination((*taken.options[:index], residents[0], *taken.options[index + 1 :]))
                if within(other, self.limits) and good.holds(other):
                    taken = other
        return taken

    def _only(self, kept: Callable[[Option, Option], bool], taken: Combination) -> dict[str, Column]:
        return {
            name: Column([each for each in column.options if kept(each, one)], self.pricer.separable)
            for (name, column), one in zip(self.options.items(), taken.options, strict=True)
        }

    def _least(self, good: Pace) -> int:
        """The least VRAM within which a plan takes at most so many seconds, where one does within the whole limit."""
        needs = _needs(self.options, self.limits.vram_bytes)
        low, high = 0, len(needs) - 1
        while low < high:
            middle = (low + high) // 2
            found = self.fastest(needs[middle])
            if found is not None and good.holds(found):
                high = middle
            else:
                low = middle + 1
        return needs[low]


def _alike(one: Option, taken: Option) -> bool:
    return (one.placement.strategy, one.placement.lossy) == (taken.placement.strategy, taken.placement.lossy)


def _stays(one: Option, taken: Option) -> bool:
    return one.placement.strategy == "resident" and one.placement.lossy == taken.placement.lossy


def _known(found: Iterable[tuple[int, Combination | None]], vram_bytes: int) -> tuple[int, Combination | None] | None:
    for entry in found:
        limit_bytes, best = entry
        if limit_bytes == vram_bytes or (limit_bytes > vram_bytes and best and best.vram_bytes <= vram_bytes):
            return entry
    return None


def _needs(options: Mapping[str, Column], vram_bytes: int) -> Sequence[int]:
    """Every VRAM need that some combination has, up to the budget."""
    idle = {0}
    for column in options.values():
        idle |= {size + column.idle_bytes for size in idle if size + column.idle_bytes <= vram_bytes}
    own = {each.own_bytes for column in options.values() for each in column.options}
    return sorted({size + need for size in idle for need in own if size + need <= vram_bytes} | {vram_bytes})


def within(combination: Combination, limits: Limits) -> bool:
    """Whether the plan stays within every limit."""
    return (
        combination.vram_bytes <= limits.vram_bytes
        and combination.host_bytes <= limits.host_bytes
        and combination.pinned_bytes <= limits.pinned_bytes
    )


def runner_up(levels: Levels, chosen: Combination) -> Combination | None:
    """The fastest plan that uses another strategy for at least one component."""
    found: Combination | None = None
    for name, taken in zip(levels.options, chosen.options, strict=True):
        others = [each for each in levels.options[name].options if each.placement.strategy != taken.placement.strategy]
        if others:
            below_s = found.seconds if found else math.inf
            options = {**levels.options, name: Column(others, levels.pricer.separable)}
            found = fastest(levels.pricer, options, levels.limits, below_s) or found
    return found
