"""The simulated fleet and the dispatcher that runs one agree: the same requests end, at the same moments."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.errors import RoostError
from roost.fleet.dispatch import Arrived, Dispatcher, Event, Lost, Step, Up, WorkerRole
from roost.planner.fleet.simulation import Failure, Line, Pool, simulate


class VirtualExecutor:
    """Workers that take their pool's seconds of a clock that nobody waits for; a task is its step's number.

    ``deaths`` are (seconds, worker, seconds until it is back), of workers that are up then.
    """

    def __init__(self, pools: Sequence[tuple[int, float]], deaths: Sequence[tuple[float, str, float]] = ()) -> None:
        self.now_s = 0.0
        self.seconds = {name: pool[1] for pool, names in zip(pools, names_of(pools), strict=True) for name in names}
        self._names, self._numbers = names_of(pools), count()
        self._life = dict.fromkeys(self.seconds, 0)
        self._down_s: dict[str, float] = {}
        self._events: list[tuple[float, int, str, str, object]] = []
        for name in self.seconds:
            self._push(0.0, "up", name, None)
        for at_s, name, down_s in deaths:
            self._push(at_s, "die", name, down_s)

    def start(self, worker: str, request: int, task: bytes) -> None:
        self._push(self.now_s + self.seconds[worker], "end", worker, (self._life[worker], int(task)))

    def restart(self, worker: str) -> None:
        self._push(self.now_s + self._down_s[worker], "up", worker, None)

    def give_up(self, worker: str) -> None: ...

    def wait(self) -> Sequence[Event]:
        while True:
            self.now_s, _, what, worker, more = heapq.heappop(self._events)
            if what == "up":
                return [Up(worker=worker)]
            if what == "die":
                assert isinstance(more, float)
                self._life[worker] += 1
                self._down_s[worker] = more
                return [Lost(worker=worker, why="it was killed")]
            life, step = more  # type: ignore[misc]
            if life == self._life[worker]:
                following = step + 1
                last = following == len(self._names)
                return [Arrived(worker=worker, next=None if last else step_of(self._names, following))]

    def _push(self, at_s: float, what: str, worker: str, more: object) -> None:
        heapq.heappush(self._events, (at_s, next(self._numbers), what, worker, more))


def names_of(pools: Sequence[tuple[int, float]]) -> list[tuple[str, ...]]:
    return [tuple(f"{pool}-{number}" for number in range(size)) for pool, (size, _) in enumerate(pools)]


def step_of(names: Sequence[tuple[str, ...]], step: int) -> Step:
    return Step(workers=names[step], task=str(step).encode())


def dispatched(pools: Sequence[tuple[int, float]], requests: int, executor: VirtualExecutor) -> tuple[list[float], int]:
    """When each request ended, and how many failed."""
    ended: list[float] = []
    failed: list[RoostError] = []
    names = names_of(pools)
    workers = [
        WorkerRole(name=each, components=frozenset(), decodes=True, denoises=True) for pool in names for each in pool
    ]
    Dispatcher(
        executor=executor,
        workers=workers,
        on_done=lambda _: ended.append(executor.now_s),
        on_failed=lambda _, why: failed.append(why),
        on_note=lambda _: None,
    ).run((number, step_of(names, 0)) for number in range(requests))
    return ended, len(failed)


def line_of(pools: Sequence[tuple[int, float]]) -> Line:
    return Line(
        pools=tuple(
            Pool(role=f"role-{step}", steps=(step,), seconds=((seconds,),) * size)
            for step, (size, seconds) in enumerate(pools)
        )
    )


POOLS = st.lists(st.tuples(st.integers(1, 4), st.floats(0.1, 5)), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(pools=POOLS, requests=st.integers(1, 40))
def test_requests_end_when_the_simulation_says(pools, requests) -> None:
    ended, failed = dispatched(pools, requests, VirtualExecutor(pools))
    assert failed == 0
    assert ended == pytest.approx(list(simulate(line_of(pools), [0.0] * requests).sojourns_s))


@settings(max_examples=60, deadline=None)
@given(pools=POOLS, requests=st.integers(1, 30), data=st.data())
def test_so_they_do_where_workers_die_and_none_is_lost(pools, requests, data) -> None:
    names = [name for pool in names_of(pools) for name in pool]
    # Nothing at the moment at which something else ends or dies: what comes first then is nobody's promise.
    pools = [(size, seconds + 0.00223607 * stage) for stage, (size, seconds) in enumerate(pools, start=1)]
    deaths = [
        (data.draw(st.floats(0.05, 20)) + 0.00141421 * number, name, data.draw(st.floats(0.1, 5)) + 0.00173205 * number)
        for number, name in enumerate(names, start=1)
        if data.draw(st.booleans())
    ]
    ended, failed = dispatched(pools, requests, VirtualExecutor(pools, deaths))
    failures = [
        Failure(pool=int(name.split("-")[0]), worker=int(name.split("-")[1]), at_s=at_s, down_s=down_s)
        for at_s, name, down_s in deaths
    ]
    outcome = simulate(line_of(pools), [0.0] * requests, failures)
    assert (len(ended), failed) == (outcome.finished, outcome.failed)
    assert ended == pytest.approx(list(outcome.sojourns_s))
    assert len(ended) + failed == requests
