"""The exact combination of one option a component, within memory on both sides of the link."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import add, le

from roost.planner.search.option import Combination, Option, turns_of
from roost.planner.search.pricing import Pricer


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes that a plan may use: on the device beside the context, on the host, and pinned of those."""

    vram_bytes: int
    host_bytes: int
    pinned_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The most seconds that a plan may take, in all and for a later generation."""

    seconds: float
    next_s: float

    def holds(self, plan: Combination) -> bool:
        """Whether the plan takes no more."""
        return plan.seconds <= self.seconds and plan.next_s <= self.next_s


class Table:
    """One column of options a component, and the least that what is not taken yet will add to what is."""

    def __init__(self, columns: list[list[Option]], room_bytes: int) -> None:
        self.columns, self.room_bytes = columns, room_bytes
        # What every column brings onto the device at the least in each gap, from every depth on.
        gaps = range(max((len(each.entering_bytes) for each in chain.from_iterable(columns)), default=0))
        least = [[min((each.entering_bytes[gap] for each in column), default=0) for gap in gaps] for column in columns]
        self.entering = [
            [max((each[gap] for each in least[depth:]), default=0) for gap in gaps] for depth in range(len(columns) + 1)
        ]
        least_s = [
            min((self._seconds(each, self.entering[0]) for each in column), default=math.inf) for column in columns
        ]
        self.rest_s = [sum(least_s[depth:]) for depth in range(len(columns) + 1)]
        self.rest_points = _rests(columns, lambda each: each.complexity)
        self.host = [_TurnRests(columns, turn) for turn in turns_of(chain.from_iterable(columns))]

    def bound_s(self, taken: Sequence[Option]) -> float:
        """No combination that begins with these takes less."""
        entering = self.entering[len(taken)]
        if any(each.leavings for each in taken):
            entering = list(map(max, entering, *(each.entering_bytes for each in taken)))
        return self.rest_s[len(taken)] + sum(self._seconds(each, entering) for each in taken)

    def _seconds(self, option: Option, entering: Sequence[int]) -> float:
        """What waits for its next use leaves where another component's use has no room beside it."""
        left_s = sum(each.seconds for each in option.leavings if each.held_bytes + entering[each.gap] > self.room_bytes)
        return option.seconds + left_s


class _TurnRests:
    """One turn of host memory, and the least that components not taken yet will take of it, from every depth on."""

    def __init__(self, columns: Sequence[Sequence[Option]], turn: int) -> None:
        self.turn = turn
        self.host = _rests(columns, lambda each: each.host_bytes_in(turn))
        self.pinned = _rests(columns, lambda each: each.pinned_bytes_in(turn))

    def allows(self, taken: Sequence[Option], limits: Limits) -> bool:
        """Whether host memory may hold a combination that begins with these."""
        host_bytes = self.host[len(taken)] + sum(each.host_bytes_in(self.turn) for each in taken)
        pinned_bytes = self.pinned[len(taken)] + sum(each.pinned_bytes_in(self.turn) for each in taken)
        return host_bytes <= limits.host_bytes and pinned_bytes <= limits.pinned_bytes


def _rests(columns: Sequence[Sequence[Option]], value: Callable[[Option], int]) -> list[int]:
    """The sum of each column's least value, from every depth on."""
    least = [min(map(value, column), default=0) for column in columns]
    return [sum(least[depth:]) for depth in range(len(columns) + 1)]


@dataclass(slots=True)
class _Descent:
    """A depth-first walk with bounds. With a ``pace`` the simplest plan that keeps it is sought, else the fastest."""

    pricer: Pricer
    limits: Limits
    pace: Pace | None
    ceiling_s: float
    best: Combination | None = None

    def walk(self, table: Table, taken: tuple[Option, ...] = ()) -> None:
        """Every combination that begins with ``taken`` and may beat the best so far."""
        depth = len(taken)
        points = sum(each.complexity for each in taken) + table.rest_points[depth]
        if self._hopeless(table.bound_s(taken), points):
            return
        if not all(each.allows(taken, self.limits) for each in table.host):
            return
        if depth == len(table.columns):
            self._offer(taken)
            return
        for option in table.columns[depth]:
            self.walk(table, (*taken, option))

    def _hopeless(self, seconds: float, points: int) -> bool:
        if seconds >= self.ceiling_s or (self.pace is not None and seconds > self.pace.seconds):
            return True
        if self.best is None:
            return False
        if self.pace is None:
            return seconds >= self.best.seconds
        return (points, seconds) >= (self.best.complexity, self.best.seconds)

    def _offer(self, taken: tuple[Option, ...]) -> None:
        offered = self.pricer.combination(taken)
        kept = self.pace is None or self.pace.holds(offered)
        if kept and not self._hopeless(offered.seconds, offered.complexity):
            self.best = offered


def possible(options: Mapping[str, Column], limits: Limits) -> bool:
    """Whether any combination is within the limits, whatever it takes."""
    turns = turns_of(chain.from_iterable(column.options for column in options.values()))
    most = (limits.host_bytes, limits.pinned_bytes) * len(turns)
    for idle_bytes, kept in _resident_sets(options, limits.vram_bytes):
        needs = {(0,) * len(most)}
        for name, column in options.items():
            fitting = column.useful(name in kept, limits.vram_bytes - idle_bytes)
            own = {_need_by_turn(each, turns) for each in fitting}
            sums = {tuple(map(add, one, other)) for one in needs for other in own}
            needs = {each for each in sums if all(map(le, each, most))}
        if needs:
            return True
    return False


def _need_by_turn(option: Option, turns: Sequence[int]) -> tuple[int, ...]:
    """Host memory, and how much of it is pinned, in one turn after another."""
    return tuple(size for turn in turns for size in (option.host_bytes_in(turn), option.pinned_bytes_in(turn)))


def fastest(
    pricer: Pricer, options: Mapping[str, Column], limits: Limits, below_s: float = math.inf
) -> Combination | None:
    """The combination of least seconds within the limits, below ``below_s``; None when there is none."""
    return _search(pricer, options, limits, None, below_s)


def simplest(pricer: Pricer, options: Mapping[str, Column], limits: Limits, pace: Pace) -> Combination | None:
    """The simplest combination within the limits that keeps the pace; the fastest of equally simple ones."""
    return _search(pricer, options, limits, pace)


def _search(
    pricer: Pricer,
    options: Mapping[str, Column],
    limits: Limits,
    pace: Pace | None,
    ceiling_s: float = math.inf,
) -> Combination | None:
    walk = _Descent(pricer=pricer, limits=limits, pace=pace, ceiling_s=ceiling_s)
    tables: list[Table] = []
    for idle_bytes, kept in _resident_sets(options, limits.vram_bytes):
        room_bytes = limits.vram_bytes - idle_bytes
        columns = [column.useful(name in kept, room_bytes) for name, column in options.items()]
        if all(columns):
            # Whatever the limit here, the simulation lets a copy linger in all of the machine's budget.
            tables.append(Table(columns, pricer.room_bytes - idle_bytes))
    for table in sorted(tables, key=lambda each: each.rest_s[0]):
        if pace is not None and table.rest_s[0] > pace.seconds:
            break
        walk.walk(table)
    return walk.best


def _resident_sets(options: Mapping[str, Column], vram_bytes: int) -> Iterator[tuple[int, frozenset[str]]]:
    """Every set of components that may stay on the device together, with its bytes."""
    sets: list[tuple[int, frozenset[str]]] = [(0, frozenset())]
    for name, column in options.items():
        idle = column.idle_bytes
        if idle:
            sets += [(size + idle, kept | {name}) for size, kept in sets if size + idle <= vram_bytes]
    yield from sets


# One component's options, without those that another of them is at least as good as wherever both fit.


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
        and one.complexity <= other.complexity
        and one.host_bytes <= other.host_bytes
        and one.pinned_bytes <= other.pinned_bytes
        and one.host_first >= other.host_first
        and one.evicted_s <= other.evicted_s
    )
