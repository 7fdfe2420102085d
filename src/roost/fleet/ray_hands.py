"""Workers as Ray actors: one for each card, that serves a call at a time; only bytes and text cross its border."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from roost.errors import RoostError
from roost.fleet.hands import Desk, Gone, Replied, Serving, Word, WorkerLost, failure_of, interruption_of, untagged
from roost.fleet.ray_cluster import Cluster, Node

_log = logging.getLogger(__name__)

# A worker's desk, given what sends a call of another's component there.
MakeDesk = Callable[[Callable[[str, bytes], bytes]], Desk]

_POLL_S = 0.5
_ENDED_S = 5.0
_LOOK_S = 2.0  # between looks at what a worker is doing
# The plan's card, and not the one that Ray would count next: cards may be unequal.
_OWN_CARD = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}

_SERVED, _LOOKED_AT = "serve", "look"
_GROUPS = {_SERVED: 1, _LOOKED_AT: 1}  # an actor's threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where a worker runs: a node, with the card of that number or none, and what it is told at its start.

    It counts as hung when it shows no sign of life for ``patience_s`` in which somebody looks.
    """

    node: Node
    card: int | None
    spec: str
    patience_s: float


@dataclass(slots=True)
class _Member:
    """A worker: its actor, what it was last asked, and its signs of life."""

    name: str
    actor: Any
    asked: Any = None  # a reference to the result
    what: str = ""  # boot, take, visit
    calls: Mapping[str, str] = field(default_factory=dict)  # the actors that it may call, by component
    silent_s: float = 0.0  # since the latest
    beats: int = -1
    look: Any = None
    unseen_s: float = 0.0  # since it was looked at
    lost: bool = False

    @property
    def waits(self) -> bool:
        """Whether it is there and has nothing to do."""
        return self.asked is None and not self.lost


class RayHands:
    """The crew's hands: ``make_desk`` makes a worker's desk in its process, given what sends calls to others.

    ``on_progress`` hears what a worker does, as its ``progress`` says it.
    """

    def __init__(
        self,
        cluster: Cluster,
        seats: Mapping[str, Seat],
        owners: Mapping[str, Sequence[str]],
        make_desk: MakeDesk,
        on_progress: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._ray, self._run, self._seats = cluster.ray, cluster.run, seats
        self._owners, self._make_desk, self._on_progress = owners, make_desk, on_progress
        self._members: dict[str, _Member] = {}
        self._values: dict[str, bytes] = {}
        self._awaited = set(seats)  # workers that haven't loaded for the first time
        self._left: set[str] = set()
        self._words: list[Word] = []
        self._lives = 0
        self._now_s = time.monotonic()
        for name in seats:
            self.restart(name)

    def start(self, worker: str, task: bytes) -> None:
        there = {part: next(each for each in names if each not in self._left) for part, names in self._owners.items()}
        calls = {part: self._members[name].name for part, name in there.items()}
        self._members[worker].calls = calls
        self._ask(worker, "visit", task, calls)

    def restart(self, worker: str) -> None:
        """Ends what is left of the worker, and starts it anew."""
        before = self._members.pop(worker, None)
        if before is not None:
            with suppress(Exception):
                self._ray.kill(before.actor, no_restart=True)
        seat = self._seats[worker]
        for each in self._members.values():
            each.unseen_s = math.inf  # what ended one may have ended others
        self._lives += 1
        name = f"{worker}.{self._lives}"
        self._members[worker] = _Member(name, self._actor(name, seat))
        self._ask(worker, "boot", seat.spec)

    def leave(self, worker: str) -> None:
        self._awaited.discard(worker)
        self._left.add(worker)
        self._share()

    def wait(self) -> Sequence[Word]:
        while not self._words:
            self._look()
            asked = {each.asked: name for name, each in self._members.items() if each.asked is not None}
            looks = {each.look: name for name, each in self._members.items() if each.look is not None}
            ready, _ = self._ray.wait([*asked, *looks], num_returns=1, timeout=_POLL_S)
            for reference in ready:
                if reference in looks:
                    self._see(looks[reference], reference)
                else:
                    self._hear(asked[reference], reference)
        words, self._words = self._words, []
        return words

    def reports(self) -> dict[str, str]:
        """Of the workers that answer within a moment."""
        there = [(name, each.actor.report) for name, each in self._members.items() if each.waits]
        asked = {report.options(concurrency_group=_LOOKED_AT).remote(): name for name, report in there}
        ready, _ = self._ray.wait([*asked], num_returns=len(asked), timeout=10.0) if asked else ([], [])
        found = {}
        for reference in ready:
            with suppress(Exception):
                found[asked[reference]] = self._ray.get(reference)
        return found

    def end(self) -> None:
        """Has the workers that wait end by themselves, and remove what they had of files."""
        with suppress(Exception):  # who doesn't is ended with the cluster
            ended = [each.actor.__ray_terminate__.remote() for each in self._members.values() if each.waits]
            self._ray.wait(ended, num_returns=len(ended), timeout=_ENDED_S)

    def _actor(self, name: str, seat: Seat) -> Any:
        remote = self._ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0, concurrency_groups=_GROUPS)(_RayDesk)
        cards = {**_OWN_CARD, "CUDA_VISIBLE_DEVICES": str(seat.card)}
        return remote.options(
            name=name,
            scheduling_strategy=self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                seat.node.key, soft=False
            ),
            **({} if seat.card is None else {"num_gpus": 1, "runtime_env": {"env_vars": cards}}),
        ).remote(self._make_desk)

    def _ask(self, worker: str, what: str, *content: object) -> None:
        member = self._members[worker]
        method = getattr(member.actor, what).options(concurrency_group=_SERVED)
        member.asked, member.what, member.silent_s = method.remote(*content), what, 0.0

    def _hear(self, name: str, reference: Any) -> None:
        """What a worker's call came to."""
        member = self._members[name]
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._lose(name, self._why(name, _told(self._ray, error)))
            return
        member.asked, member.silent_s = None, 0.0
        if member.what == "visit":
            self._lose_called(member, result)
            self._words.append(Replied(worker=name, reply=result))
        elif member.what == "boot":
            self._booted(name, result)
        else:
            self._words.append(Serving(worker=name))

    def _lose_called(self, caller: _Member, reply: bytes) -> None:
        """Loses the worker whose loss ended a visit to the caller, unless that was told before."""
        kind, content = untagged(reply)
        if kind != "interrupted":
            return
        lost = interruption_of(content)
        for name, member in self._members.items():
            if member.name == caller.calls[lost.component] and not member.lost:
                self._lose(name, self._why(name, lost.why))

    def _booted(self, name: str, result: bytes) -> None:
        kind, content = untagged(result)
        if kind != "done":
            error = failure_of(content)
            self._lose(name, str(error), error)
            return
        self._values[name] = content
        self._awaited.discard(name)
        self._share()

    def _share(self) -> None:
        """Once all have loaded, gives those that have just done so what the others have."""
        for name, member in self._members.items():
            if not self._awaited and member.what == "boot" and member.waits:
                self._ask(name, "take", [values for of, values in self._values.items() if of != name])

    def _lose(self, name: str, why: str, error: RoostError | None = None) -> None:
        self._members[name].asked, self._members[name].lost = None, True
        self._words.append(Gone(worker=name, why=why, error=error))

    def _look(self) -> None:
        """Asks all workers what they do, now and then; who shows nothing for too long is lost.

        Time in which nobody could have seen a sign, since this process was stopped, doesn't count.
        """
        before_s, self._now_s = self._now_s, time.monotonic()
        passed_s = min(self._now_s - before_s, _LOOK_S)
        for name, member in self._members.items():
            member.silent_s += passed_s
            member.unseen_s += passed_s
            if member.lost:
                continue
            if member.silent_s > self._seats[name].patience_s:
                self._ray.kill(member.actor, no_restart=True)
                self._lose(name, f"it showed no sign of life for {self._seats[name].patience_s:.0f} s")
            elif member.look is None and member.unseen_s > _LOOK_S:
                member.look = member.actor.progress.options(concurrency_group=_LOOKED_AT).remote()
                member.unseen_s = 0.0

    def _see(self, name: str, reference: Any) -> None:
        """What a look at a worker found. One that waits is alive when it answers; one at work, when it gets on."""
        member = self._members[name]
        member.look = None
        try:
            found = json.loads(self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            if member.waits:  # else its call tells
                self._lose(name, self._why(name, _told(self._ray, error)))
            return
        if found["beats"] != member.beats or member.asked is None:
            member.beats, member.silent_s = found["beats"], 0.0
        if member.asked is not None:
            self._on_progress(name, found)

    def _why(self, name: str, told: str) -> str:
        """Why a worker is lost whose call gave no reply, of which that is ``told``."""
        _log.info("%s: %s", name, told)
        node = self._seats[name].node
        if not any(each["NodeID"] == node.key and each["Alive"] for each in self._ray.nodes()):
            return f"its node, {node.name}, is gone"
        return told


def _told(ray: Any, error: Exception) -> str:
    """What kept a call from its reply; looking for an actor that is no more raises no RayError."""
    if isinstance(error, ray.exceptions.RayActorError) or not isinstance(error, ray.exceptions.RayError):
        return "its process ended"
    return " ".join(f"{type(error).__name__}: {error}".split())


class _RayDesk:
    """A desk in an actor's process."""

    def __init__(self, make_desk: MakeDesk) -> None:
        self._owners: Mapping[str, str] = {}
        self._desk = make_desk(self._send)

    def boot(self, spec: str) -> bytes:
        return self._desk.boot(spec)

    def take(self, values: list[bytes]) -> None:
        for each in values:
            self._desk.take(each)

    def visit(self, task: bytes, owners: Mapping[str, str]) -> bytes:
        """``owners`` are the actors' names by component."""
        self._owners = owners
        return self._desk.visit(task)

    def answer(self, component: str, question: bytes) -> bytes:
        return self._desk.answer(component, question)

    def progress(self) -> str:
        return self._desk.progress()

    def report(self) -> str:
        return self._desk.report()

    def _send(self, component: str, question: bytes) -> bytes:
        import ray  # imported here: in an actor it is there

        try:
            answer = ray.get_actor(self._owners[component]).answer.options(concurrency_group=_SERVED)
            found: bytes = ray.get(answer.remote(component, question))
        except (ray.exceptions.RayError, ValueError) as error:
            raise WorkerLost(component, _told(ray, error)) from error
        return found
