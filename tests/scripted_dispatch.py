"""A dispatcher whose workers end each task as a script says, without a clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from roost.errors import RoostError
from roost.fleet.dispatch import Arrived, Dispatcher, Event, Interrupted, Lost, Step, Up, WorkerRole

Ends = Callable[[str, int, bytes], Event]


class ScriptedExecutor:
    """Workers of which each task ends when nothing else does before it, or when the script says.

    ``ends`` says with which event a task ends; ``begun`` are (worker, request) in the order of their starts. A worker
    that is in ``dead`` is lost again at each start.
    """

    def __init__(self, names: Sequence[str], ends: Ends, dead: Sequence[str] = ()) -> None:
        self.begun: list[tuple[str, int]] = []
        self.restarted: list[str] = []
        self.held_back: set[str] = set()  # workers whose tasks don't end while others' do
        self.dead = set(dead)
        self.on_event: Callable[[Event], object] = lambda _: None
        self._ends = ends
        self._running: dict[str, tuple[int, bytes]] = {}
        self._events: deque[Event] = deque(self._begins(name) for name in names)

    def start(self, worker: str, request: int, task: bytes) -> None:
        assert worker not in self._running, "a worker serves one request at a time"
        assert not any(number == request for number, _ in self._running.values()), "a request is at one worker"
        self._running[worker] = (request, task)
        self.begun.append((worker, request))

    def restart(self, worker: str) -> None:
        assert worker not in self._running
        self.restarted.append(worker)
        self._events.append(self._begins(worker))

    def give_up(self, worker: str) -> None:
        assert worker in self.dead

    def wait(self) -> Sequence[Event]:
        if self._events:
            return [self._told(self._events.popleft())]
        assert self._running, "nobody works, and the dispatcher waits"
        worker = next((each for each in self._running if each not in self.held_back), next(iter(self._running)))
        return [self._told(self._ends(worker, *self._running.pop(worker)))]

    def _told(self, event: Event) -> Event:
        self.on_event(event)
        return event

    def lose_called(self, worker: str, event: Event) -> None:
        """What it does ends with it; ``event`` is the next one."""
        self._running.pop(worker, None)
        self._events.appendleft(event)

    def _begins(self, worker: str) -> Event:
        return Lost(worker=worker, why="it was killed at its start") if worker in self.dead else Up(worker=worker)


class Run:
    """What a dispatcher made of requests; ``steps`` are the names of workers that each goes through, by stage."""

    def __init__(self, stages: Sequence[Sequence[str]], **executor: object) -> None:
        self.stages = [tuple(each) for each in stages]
        self.names = list(dict.fromkeys(name for each in stages for name in each))
        self.done: list[int] = []
        self.failed: dict[int, str] = {}
        self.notes: list[str] = []
        self.most_on_their_way = 0
        self.executor = ScriptedExecutor(self.names, self.ends, **executor)  # type: ignore[arg-type]
        self.trouble: dict[tuple[str, int], Event] = {}  # in place of the next end of a request at a worker
        self.deadly: set[int] = set()  # requests in which every worker is lost
        self.calls: dict[int, tuple[tuple[str, ...], ...]] = {}  # whom workers of a stage call
        self.dispatcher = Dispatcher(
            executor=self.executor,
            workers=[
                WorkerRole(name=each, components=self._parts(each), decodes=True, denoises=True) for each in self.names
            ],
            on_done=self.done.append,
            on_failed=self._fail,
            on_note=self.notes.append,
        )

    def go(self, requests: int) -> Run:
        self.dispatcher.run(self._taken(requests))
        return self

    def ends(self, worker: str, request: int, task: bytes) -> Event:
        if request in self.deadly:
            return Lost(worker=worker, why="out of memory")
        if (worker, request) in self.trouble:
            event = self.trouble.pop((worker, request))
            if isinstance(event, Lost) and event.worker != worker:
                self.executor.lose_called(event.worker, Interrupted(worker=worker, why=event.why))
            return event
        following = int(task) + 1
        return Arrived(worker=worker, next=None if following == len(self.stages) else self._step(following))

    def at(self, stage: int) -> list[int]:
        """The requests in the order in which a stage's workers began them."""
        return [number for worker, number in self.executor.begun if worker in self.stages[stage]]

    def _parts(self, worker: str) -> frozenset[str]:
        """One for each stage that it serves."""
        return frozenset(str(number) for number, names in enumerate(self.stages) if worker in names)

    def _taken(self, requests: int) -> Iterator[tuple[int, Step]]:
        for number in range(requests):
            self.most_on_their_way = max(self.most_on_their_way, number + 1 - len(self.done) - len(self.failed))
            yield number, self._step(0)

    def _step(self, stage: int) -> Step:
        return Step(workers=self.stages[stage], task=str(stage).encode(), calls=self.calls.get(stage, ()))

    def lose_called(self, called: str, caller: str, request: int) -> None:
        """Loses a worker as it answers one that has the request, whose visit that ends."""
        self.trouble[caller, request] = Lost(worker=called, why="it was killed")

    def _fail(self, number: int, why: RoostError) -> None:
        assert number not in self.failed
        self.failed[number] = str(why)
