"""A fleet as a discrete-event simulation: requests arrive, wait their turn, and go from pool to pool.

Every pool has one queue, first come first served, and a worker takes one request at a time. As many requests are in the
fleet as it has workers; the others wait outside. A worker may die: its request goes back to the head of the queue, at
most twice.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# How often a request is tried again when its worker died.
_MOST_RETRIES = 2
_ENTERS, _ENDS, _DIES, _RETURNS = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Workers that do the same steps of a request. ``seconds`` has for each worker those of each of the steps."""

    role: str
    steps: tuple[int, ...]
    seconds: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The pools that a request goes through; ``gaps_s`` are transfers before each step but the first."""

    pools: tuple[Pool, ...]
    gaps_s: tuple[float, ...] = ()

    @property
    def workers(self) -> int:
        return sum(len(pool.seconds) for pool in self.pools)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A worker of a pool dies at a time, and is back ``down_s`` later."""

    pool: int
    worker: int
    at_s: float
    down_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of all requests. Sojourns are from arrival to end; busy shares are of each role's workers."""

    finished: int
    failed: int
    makespan_s: float
    sojourns_s: tuple[float, ...]  # sorted
    busy: Mapping[str, float]

    @property
    def requests_per_s(self) -> float:
        return self.finished / self.makespan_s if self.makespan_s else 0.0

    def percentile_s(self, share: float) -> float:
        """The sojourn that so large a share of requests doesn't exceed; 0 where none ended."""
        count = len(self.sojourns_s)
        return self.sojourns_s[max(0, math.ceil(share * count) - 1)] if count else 0.0


@dataclass(slots=True)
class _Worker:
    pool: int
    seconds: Mapping[int, float]
    life: int = 0  # counts deaths: what was said of an earlier life is void
    up: bool = True
    serves: tuple[int, int] | None = None  # request, step
    since_s: float = 0.0
    busy_s: float = 0.0


@dataclass(slots=True)
class _Fleet:
    """The state: one event heap, and for each pool a queue and a heap of idle workers, the quickest first."""

    line: Line
    arrivals: Sequence[float]
    workers: list[_Worker]
    events: list[tuple[float, int, int, int, int]] = field(default_factory=list)  # s, number, what, of whom, beside
    queues: list[deque[tuple[int, int]]] = field(default_factory=list)
    idle: list[list[tuple[float, int, int]]] = field(default_factory=list)  # seconds, worker, life
    pool_of_step: dict[int, int] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)
    number: int = 0
    inside: int = 0
    entered: int = 0
    failed: int = 0
    sojourns_s: list[float] = field(default_factory=list)
    last_s: float = 0.0

    def push(self, at_s: float, what: int, whom: int, beside: int = 0) -> None:
        self.number += 1
        heapq.heappush(self.events, (at_s, self.number, what, whom, beside))

    def admit(self, now_s: float) -> None:
        """Lets in who has arrived while there is room; who comes later is an event of his own."""
        while self.inside < self.line.workers and self.entered < len(self.arrivals):
            request, at_s = self.entered, self.arrivals[self.entered]
            self.entered += 1
            self.inside += 1
            if at_s <= now_s:
                self.join(now_s, request, 0)
            else:
                self.push(at_s, _ENTERS, request, 0)

    def join(self, now_s: float, request: int, step: int) -> None:
        pool = self.pool_of_step[step]
        self.queues[pool].append((request, step))
        self.serve(now_s, pool)

    def serve(self, now_s: float, pool: int) -> None:
        """Gives queued requests to idle workers."""
        queue, idle, workers = self.queues[pool], self.idle[pool], self.workers
        while queue and idle:
            _, index, life = heapq.heappop(idle)
            worker = workers[index]
            if worker.life != life:
                continue
            worker.serves, worker.since_s = queue.popleft(), now_s
            self.push(now_s + worker.seconds[worker.serves[1]], _ENDS, index, life)

    def rest(self, index: int) -> None:
        worker = self.workers[index]
        worker.serves = None
        heapq.heappush(self.idle[worker.pool], (sum(worker.seconds.values()), index, worker.life))

    def end(self, now_s: float, index: int, life: int) -> None:
        worker = self.workers[index]
        if worker.life != life or worker.serves is None:
            return
        request, step = worker.serves
        worker.busy_s += now_s - worker.since_s
        self.rest(index)
        if step + 1 in self.pool_of_step:
            gap_s = self.line.gaps_s[step] if self.line.gaps_s else 0.0
            if gap_s:
                self.push(now_s + gap_s, _ENTERS, request, step + 1)
            else:
                self.join(now_s, request, step + 1)
        else:
            self.sojourns_s.append(now_s - self.arrivals[request])
            self.leave(now_s)
        self.serve(now_s, worker.pool)

    def leave(self, now_s: float) -> None:
        self.last_s = now_s
        self.inside -= 1
        self.admit(now_s)

    def die(self, now_s: float, index: int) -> None:
        worker = self.workers[index]
        serves, worker.serves, worker.up = worker.serves, None, False
        worker.life += 1
        if serves is None:
            return
        worker.busy_s += now_s - worker.since_s
        request = serves[0]
        self.tries[request] = self.tries.get(request, 0) + 1
        if self.tries[request] > _MOST_RETRIES:
            self.failed += 1
            self.leave(now_s)
        else:
            self.queues[worker.pool].appendleft(serves)
            self.serve(now_s, worker.pool)

    def back(self, now_s: float, index: int) -> None:
        self.workers[index].up = True
        self.rest(index)
        self.serve(now_s, self.workers[index].pool)


def simulate(line: Line, arrivals: Sequence[float], failures: Sequence[Failure] = ()) -> Outcome:
    """What the fleet makes of requests that arrive at those seconds, in their order."""
    workers = [
        _Worker(pool=number, seconds=dict(zip(pool.steps, seconds, strict=True)))
        for number, pool in enumerate(line.pools)
        for seconds in pool.seconds
    ]
    fleet = _Fleet(line=line, arrivals=arrivals, workers=workers)
    fleet.queues, fleet.idle = [deque() for _ in line.pools], [[] for _ in line.pools]
    fleet.pool_of_step = {step: number for number, pool in enumerate(line.pools) for step in pool.steps}
    for index in range(len(workers)):
        fleet.rest(index)
    _plan_failures(fleet, failures)
    fleet.admit(0.0)
    while fleet.events and fleet.inside:
        now_s, _, what, whom, beside = heapq.heappop(fleet.events)
        if what == _ENDS:
            fleet.end(now_s, whom, beside)
        elif what == _ENTERS:
            fleet.join(now_s, whom, beside)
        elif what == _DIES:
            _die_if_up(fleet, now_s, whom, beside, failures)
        else:
            fleet.back(now_s, whom)
    return _outcome(fleet)


def _plan_failures(fleet: _Fleet, failures: Sequence[Failure]) -> None:
    firsts, first = [], 0
    for pool in fleet.line.pools:
        firsts.append(first)
        first += len(pool.seconds)
    for number, each in enumerate(failures):
        fleet.push(each.at_s, _DIES, firsts[each.pool] + each.worker, number)


def _die_if_up(fleet: _Fleet, now_s: float, index: int, number: int, failures: Sequence[Failure]) -> None:
    if fleet.workers[index].up:
        fleet.die(now_s, index)
        fleet.push(now_s + failures[number].down_s, _RETURNS, index)


def _outcome(fleet: _Fleet) -> Outcome:
    busy_s: dict[str, float] = {}
    counts: dict[str, int] = {}
    for worker in fleet.workers:
        role = fleet.line.pools[worker.pool].role
        busy_s[role] = busy_s.get(role, 0.0) + worker.busy_s
        counts[role] = counts.get(role, 0) + 1
    span_s = fleet.last_s - (fleet.arrivals[0] if fleet.arrivals else 0.0)
    return Outcome(
        finished=len(fleet.sojourns_s),
        failed=fleet.failed,
        makespan_s=span_s,
        sojourns_s=tuple(sorted(fleet.sojourns_s)),
        busy={role: busy_s[role] / (counts[role] * span_s) if span_s else 0.0 for role in counts},
    )
