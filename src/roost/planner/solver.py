"""The exact combination of one option a component, within memory on both sides of the link."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from roost.planner.pricing import Option, Pricer

# A plan whose seconds are within this of the best is as good; the simplest of them is taken.
NOISE = 1.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes that a plan may use: on the device beside the context, on the host, and pinned of those."""

    vram_bytes: int
    host_bytes: int
    pinned_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """One option for each component, in their given order, with the whole plan's seconds and needs."""

    options: tuple[Option, ...]
    seconds: float

    @property
    def complexity(self) -> int:
        return sum(each.complexity for each in self.options)

    @property
    def vram_bytes(self) -> int:
        """The least that every stage fits in, context apart."""
        return sum(each.idle_bytes for each in self.options) + max(each.own_bytes for each in self.options)

    @property
    def host_bytes(self) -> int:
        return sum(each.host_bytes for each in self.options)


@dataclass(slots=True)
class _Descent:
    """A depth-first walk with bounds. With ``limit_s`` the simplest plan within it is sought, else the fastest."""

    pricer: Pricer
    limits: Limits
    limit_s: float | None
    ceiling_s: float
    best: Combination | None = None

    def walk(self, columns: Sequence[Sequence[Option]]) -> None:
        least_s = [min(option.seconds for option in column) for column in columns]
        plainest = [min(option.complexity for option in column) for column in columns]
        rest_s = [sum(least_s[depth:]) for depth in range(len(columns) + 1)]
        rest_points = [sum(plainest[depth:]) for depth in range(len(columns) + 1)]
        self._descend(columns, (), rest_s, rest_points)

    def _descend(
        self, columns: Sequence[Sequence[Option]], taken: tuple[Option, ...], rest_s: list[float], rest: list[int]
    ) -> None:
        depth = len(taken)
        seconds = sum(each.seconds for each in taken) + rest_s[depth]
        points = sum(each.complexity for each in taken) + rest[depth]
        if self._hopeless(seconds, points) or not self._host_allows(taken):
            return
        if depth == len(columns):
            self._offer(taken)
            return
        for option in columns[depth]:
            self._descend(columns, (*taken, option), rest_s, rest)

    def _hopeless(self, seconds: float, points: int) -> bool:
        if seconds >= self.ceiling_s or (self.limit_s is not None and seconds > self.limit_s):
            return True
        if self.best is None:
            return False
        if self.limit_s is None:
            return seconds >= self.best.seconds
        return (points, seconds) >= (self.best.complexity, self.best.seconds)

    def _host_allows(self, taken: Sequence[Option]) -> bool:
        return (
            sum(each.host_bytes for each in taken) <= self.limits.host_bytes
            and sum(each.pinned_bytes for each in taken) <= self.limits.pinned_bytes
        )

    def _offer(self, taken: tuple[Option, ...]) -> None:
        offered = Combination(options=taken, seconds=self.pricer.total_s(taken))
        if not self._hopeless(offered.seconds, offered.complexity):
            self.best = offered


def fastest(
    pricer: Pricer, options: Mapping[str, Sequence[Option]], limits: Limits, below_s: float = math.inf
) -> Combination | None:
    """The combination of least seconds within the limits, below ``below_s``; None when there is none."""
    return _search(pricer, options, limits, None, below_s)


def simplest(
    pricer: Pricer, options: Mapping[str, Sequence[Option]], limits: Limits, limit_s: float
) -> Combination | None:
    """The simplest combination within the limits and ``limit_s``; the fastest of equally simple ones."""
    return _search(pricer, options, limits, limit_s)


def _search(
    pricer: Pricer,
    options: Mapping[str, Sequence[Option]],
    limits: Limits,
    limit_s: float | None,
    ceiling_s: float = math.inf,
) -> Combination | None:
    walk = _Descent(pricer=pricer, limits=limits, limit_s=limit_s, ceiling_s=ceiling_s)
    tables: list[tuple[float, int, list[list[Option]]]] = []
    for idle_bytes, kept in _resident_sets(options, limits.vram_bytes):
        columns = [
            _useful(column, name in kept, limits.vram_bytes - idle_bytes, pricer.separable)
            for name, column in options.items()
        ]
        if all(columns):
            tables.append((sum(min(each.seconds for each in column) for column in columns), len(tables), columns))
    for bound_s, _, columns in sorted(tables):
        if limit_s is not None and bound_s > limit_s:
            break
        walk.walk(columns)
    return walk.best


def _resident_sets(options: Mapping[str, Sequence[Option]], vram_bytes: int) -> Iterator[tuple[int, frozenset[str]]]:
    """Every set of components that may stay on the device together, with its bytes."""
    sets: list[tuple[int, frozenset[str]]] = [(0, frozenset())]
    for name, column in options.items():
        idle = max((each.idle_bytes for each in column), default=0)
        if idle:
            sets += [(size + idle, kept | {name}) for size, kept in sets if size + idle <= vram_bytes]
    yield from sets


def _useful(column: Sequence[Option], stays: bool, room_bytes: int, separable: bool) -> list[Option]:
    """Options of one component that fit the room, without those that another is at least as good as in all respects."""
    fitting = [each for each in column if (each.idle_bytes > 0) == stays and each.own_bytes <= room_bytes]
    useful: list[Option] = []
    for option in sorted(fitting, key=lambda each: (each.seconds, each.complexity, each.own_bytes, each.host_bytes)):
        if not any(_at_least_as_good(other, option, separable) for other in useful):
            useful.append(option)
    return useful


def _at_least_as_good(one: Option, other: Option, separable: bool) -> bool:
    # Where components come back, what it takes to keep or to move one decides what others cost.
    smaller = separable or (
        one.own_bytes <= other.own_bytes
        and one.acquire_s <= other.acquire_s
        and one.placement.linger == other.placement.linger
    )
    return (
        smaller
        and one.seconds <= other.seconds
        and one.complexity <= other.complexity
        and one.host_bytes <= other.host_bytes
        and one.pinned_bytes <= other.pinned_bytes
    )
