"""Which worker does what next: requests in their order, each where what it needs is, and again where a worker is lost.

Nothing here knows processes, models or tensors: an executor starts tasks and tells how they ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from roost.errors import RoostError

MOST_LOSSES = 2  # how often a request is tried again after its worker was lost
_MOST_STARTS = 3  # in a row, of one worker


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRole:
    """What a worker has: its components, and whether it is one that decodes, and that denoises."""

    name: str
    components: frozenset[str]
    decodes: bool
    denoises: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where a request goes next: to one of these workers, the best first, with that task.

    From there it calls other workers, one of each group in ``calls``: the first that isn't given up.
    """

    workers: tuple[str, ...]
    task: bytes
    calls: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A visit that ended well: the request's next step, or None where it is done."""

    worker: str
    next: Step | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A visit that ended with the request's own failure: it isn't tried again."""

    worker: str
    why: RoostError


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """A visit that ended because another worker, which was called from it, is lost: the request is tried again.

    The loss of the other one is an event of its own, and comes first.
    """

    worker: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A worker that is gone, hung or out of memory, and why."""

    worker: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """A worker that serves, for the first time or again."""

    worker: str


Event = Arrived | Failed | Interrupted | Lost | Up


class Executor(Protocol):
    """Who starts workers and tasks."""

    def start(self, worker: str, request: int, task: bytes) -> None:
        """Has the worker begin the task; an event tells the end."""

    def restart(self, worker: str) -> None:
        """Starts a lost worker anew; an event tells when it is up, or lost again."""

    def give_up(self, worker: str) -> None:
        """A lost worker isn't started again, and nobody is to wait for it."""

    def wait(self) -> Sequence[Event]:
        """The next events; blocks until there is one."""


@dataclass(slots=True)
class _Request:
    """One that is on its way: its next step, where it is now, and how often its worker was lost."""

    number: int
    step: Step
    at: str | None = None
    losses: int = 0


@dataclass(slots=True)
class Dispatcher:
    """Takes requests through the workers. ``on_done`` and ``on_failed`` hear of each by its number.

    As many are on their way as there are workers: with an encoder, d denoisers and a decoder, d + 2. The oldest goes
    first everywhere, and one that waits, fails or is slow holds up nobody who needs another worker.
    """

    executor: Executor
    workers: Sequence[WorkerRole]
    on_done: Callable[[int], None]
    on_failed: Callable[[int, RoostError], None]
    on_note: Callable[[str], None]
    restarts: dict[str, int] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)
    _under_way: dict[int, _Request] = field(default_factory=dict)
    _free: set[str] = field(default_factory=set)
    _up: set[str] = field(default_factory=set)
    _starts: dict[str, int] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)  # workers that don't come back

    def run(self, requests: Iterator[tuple[int, Step]]) -> None:
        """Returns when each request is done or has failed. Raises RoostError for a worker that is given up, unless
        another does all that it does.
        """
        self.restarts = {each.name: 0 for each in self.workers}
        self.served = {each.name: 0 for each in self.workers}
        waiting = True
        while waiting or self._under_way:
            while waiting and len(self._under_way) < len(self.workers):
                following = next(requests, None)
                waiting = following is not None
                if following is not None:
                    self._under_way[following[0]] = _Request(*following)
            self._start_what_can()
            if self._under_way:
                for event in self.executor.wait():
                    self._take(event)

    def _start_what_can(self) -> None:
        for number in sorted(self._under_way):
            request = self._under_way[number]
            if request.at is not None or not self._answers(request.step):
                continue
            free = next((each for each in request.step.workers if each in self._free), None)
            if free is not None:
                self._free.discard(free)
                request.at = free
                self.executor.start(free, number, request.step.task)

    def _answers(self, step: Step) -> bool:
        """Whether all that the step calls are up: a call of one that isn't would end the visit."""
        called = (next((each for each in group if each not in self._gone), None) for group in step.calls)
        return all(each in self._up for each in called)

    def _take(self, event: Event) -> None:
        request = next((each for each in self._under_way.values() if each.at == event.worker), None)
        if isinstance(event, Up):
            self._starts[event.worker] = 0
            self._up.add(event.worker)
            self._free.add(event.worker)
        elif isinstance(event, Lost):
            self._lose(event, request)
        elif isinstance(event, Interrupted):
            self._free.add(event.worker)
            self._try_again(request, event.why)
        elif request is not None:
            self._free.add(event.worker)
            self.served[event.worker] += 1
            if isinstance(event, Failed):
                self._end(request, event.why)
            elif event.next is None:
                del self._under_way[request.number]
                self.on_done(request.number)
            else:
                request.step, request.at = event.next, None

    def _lose(self, event: Lost, request: _Request | None) -> None:
        self._free.discard(event.worker)
        self._up.discard(event.worker)
        self._starts[event.worker] = self._starts.get(event.worker, 0) + 1
        if self._starts[event.worker] >= _MOST_STARTS:
            if not self._is_spare(event.worker):
                raise RoostError(
                    f"{event.worker} was lost {_MOST_STARTS} times in a row, and no other worker does its work:"
                    f" {event.why.removesuffix('.')}; what is finished is saved, and the same command goes on."
                )
            self._gone.add(event.worker)
            self.executor.give_up(event.worker)
            self.on_note(f"{event.worker} is given up: {event.why}")
        else:
            self.on_note(f"{event.worker} is started again: {event.why}")
            self.restarts[event.worker] += 1
            self.executor.restart(event.worker)
        self._try_again(request, event.why)

    def _try_again(self, request: _Request | None, why: str) -> None:
        if request is None:
            return
        request.at, request.losses = None, request.losses + 1
        if request.losses > MOST_LOSSES:
            lost = f"its worker was lost {request.losses} times, the last time since {why}"
            self._end(request, RoostError(lost))

    def _is_spare(self, worker: str) -> bool:
        """Whether another one that isn't given up can do all that this one does."""
        own = next(each for each in self.workers if each.name == worker)
        return any(
            each.components >= own.components and each.decodes >= own.decodes and each.denoises >= own.denoises
            for each in self.workers
            if each.name not in (worker, *self._gone)
        )

    def _end(self, request: _Request, why: RoostError) -> None:
        del self._under_way[request.number]
        self.on_failed(request.number, why)
