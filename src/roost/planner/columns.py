"""One component's options, without those that another of them is at least as good as wherever both fit."""

from __future__ import annotations

import math
from collections.abc import Iterable

from roost.planner.pricing import Option


class Column:
    """The options of one component; which of them matter in how much room is worked out once."""

    def __init__(self, options: Iterable[Option], separable: bool) -> None:
        self.options = tuple(options)
        self.idle_bytes = max((each.idle_bytes for each in self.options), default=0)
        self._ranked: list[tuple[Option, float]] = []  # with the room in which a better one fits too
        for option in sorted(self.options, key=_rank):
            beaten_from = _beaten_from(option, self._ranked, separable)
            if beaten_from > option.own_bytes:
                self._ranked.append((option, beaten_from))

    def useful(self, stays: bool, room_bytes: int) -> list[Option]:
        """Options that fit the room, the fastest first, without those that are beaten there in all respects."""
        return [
            option
            for option, beaten_from in self._ranked
            if option.own_bytes <= room_bytes < beaten_from and (option.idle_bytes > 0) == stays
        ]


def _rank(option: Option) -> tuple[float, int, int, int]:
    return option.seconds, option.complexity, option.own_bytes, option.host_bytes


def _beaten_from(option: Option, better: Iterable[tuple[Option, float]], separable: bool) -> float:
    """The least room in which one of the ``better`` is at least as good; infinite when none is."""
    least = math.inf
    for other, _ in better:
        if other.own_bytes < least and _at_least_as_good(other, option, separable):
            least = other.own_bytes
            if least <= option.own_bytes:
                break
    return least


def _at_least_as_good(one: Option, other: Option, separable: bool) -> bool:
    # Where components come back, what it takes to keep or to move one decides what others cost.
    smaller = separable or (
        one.own_bytes <= other.own_bytes
        and one.acquire_s <= other.acquire_s
        and one.placement.linger == other.placement.linger
    )
    return (
        smaller
        and (one.idle_bytes > 0) == (other.idle_bytes > 0)
        and one.seconds <= other.seconds
        and one.evicted_s <= other.evicted_s
        and one.complexity <= other.complexity
        and one.host_bytes <= other.host_bytes
        and one.pinned_bytes <= other.pinned_bytes
    )
