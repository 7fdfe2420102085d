"""A pool of workers that are Ray actors: one for each card, which serves a call at a time."""

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
from roost.fleet.pool import (
    Gone,
    PoolEvent,
    Replied,
    Serving,
    failure_of,
    interruption_of,
    untagged,
)
from roost.fleet.ray_actor import GROUPS, LOOKED_AT, SERVED, MakeServer, WorkerActor, why_no_reply
from roost.fleet.ray_cluster import Cluster, Node

_log = logging.getLogger(__name__)

_POLL_S = 0.5
_ENDED_S = 5.0
_LOOK_S = 2.0  # between looks at what a worker is doing
# The plan's card, and not the one that Ray would count next: cards may be unequal.
_OWN_CARD = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorPlacement:
    """Where a worker runs: a node, with the card of that number or none, and what it is told at its start.

    It counts as hung when it shows no sign of life for ``heartbeat_timeout_s`` in which somebody looks.
    """

    node: Node
    card: int | None
    spec: str
    heartbeat_timeout_s: float


@dataclass(slots=True)
class _WorkerState:
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


class RayPool:
    """``make_server`` makes a worker's server in its process, given what sends calls to others.

    ``on_progress`` hears what a worker does, as its ``progress`` says it.
    """

    def __init__(
        self,
        cluster: Cluster,
        placements: Mapping[str, ActorPlacement],
        owners: Mapping[str, Sequence[str]],
        make_server: MakeServer,
        on_progress: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._ray, self._placements = cluster.ray, placements
        self._owners, self._make_server, self._on_progress = owners, make_server, on_progress
        self._workers: dict[str, _WorkerState] = {}
        self._values: dict[str, bytes] = {}
        self._awaited = set(placements)  # workers that haven't loaded for the first time
        self._given_up: set[str] = set()
        self._events: list[PoolEvent] = []
        self._lives = 0
        self._now_s = time.monotonic()
        for name in placements:
            self.restart(name)

    def start(self, worker: str, task: bytes) -> None:
        calls = {component: self._workers[self._owner_of(component)].name for component in self._owners}
        self._workers[worker].calls = calls
        self._ask(worker, "visit", task, calls)

    def _owner_of(self, component: str) -> str:
        return next(each for each in self._owners[component] if each not in self._given_up)

    def restart(self, worker: str) -> None:
        """Ends what is left of the worker, and starts it anew."""
        before = self._workers.pop(worker, None)
        if before is not None:
            with suppress(Exception):
                self._ray.kill(before.actor, no_restart=True)
        placement = self._placements[worker]
        for each in self._workers.values():
            each.unseen_s = math.inf  # what ended one may have ended others
        self._lives += 1
        name = f"{worker}.{self._lives}"
        self._workers[worker] = _WorkerState(name, self._actor(name, placement))
        self._ask(worker, "boot", placement.spec)

    def give_up(self, worker: str) -> None:
        self._awaited.discard(worker)
        self._given_up.add(worker)
        self._share()

    def wait(self) -> Sequence[PoolEvent]:
        while not self._events:
            self._look()
            asked = {each.asked: name for name, each in self._workers.items() if each.asked is not None}
            looks = {each.look: name for name, each in self._workers.items() if each.look is not None}
            ready, _ = self._ray.wait([*asked, *looks], num_returns=1, timeout=_POLL_S)
            for reference in ready:
                if reference in looks:
                    self._see(looks[reference], reference)
                else:
                    self._hear(asked[reference], reference)
        events, self._events = self._events, []
        return events

    def reports(self) -> dict[str, str]:
        """Of the workers that answer within a moment."""
        there = [(name, each.actor.report) for name, each in self._workers.items() if each.waits]
        asked = {report.options(concurrency_group=LOOKED_AT).remote(): name for name, report in there}
        ready, _ = self._ray.wait([*asked], num_returns=len(asked), timeout=10.0) if asked else ([], [])
        found = {}
        for reference in ready:
            with suppress(Exception):
                found[asked[reference]] = self._ray.get(reference)
        return found

    def end(self) -> None:
        """Has the workers that wait end by themselves, and remove what they had of files."""
        with suppress(Exception):  # who doesn't is ended with the cluster
            ended = [each.actor.__ray_terminate__.remote() for each in self._workers.values() if each.waits]
            self._ray.wait(ended, num_returns=len(ended), timeout=_ENDED_S)

    def _actor(self, name: str, placement: ActorPlacement) -> Any:
        remote = self._ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0, concurrency_groups=GROUPS)(
            WorkerActor
        )
        cards = {**_OWN_CARD, "CUDA_VISIBLE_DEVICES": str(placement.card)}
        return remote.options(
            name=name,
            scheduling_strategy=self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                placement.node.key, soft=False
            ),
            **({} if placement.card is None else {"num_gpus": 1, "runtime_env": {"env_vars": cards}}),
        ).remote(self._make_server)

    def _ask(self, worker: str, what: str, *content: object) -> None:
        state = self._workers[worker]
        method = getattr(state.actor, what).options(concurrency_group=SERVED)
        state.asked, state.what, state.silent_s = method.remote(*content), what, 0.0

    def _hear(self, name: str, reference: Any) -> None:
        """What a worker's call came to."""
        state = self._workers[name]
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._lose(name, self._why(name, why_no_reply(self._ray, error)))
            return
        state.asked, state.silent_s = None, 0.0
        if state.what == "visit":
            self._lose_called(state, result)
            self._events.append(Replied(worker=name, reply=result))
        elif state.what == "boot":
            self._booted(name, result)
        else:
            self._events.append(Serving(worker=name))

    def _lose_called(self, caller: _WorkerState, reply: bytes) -> None:
        """Loses the worker whose loss ended a visit to the caller, unless that was told before."""
        kind, content = untagged(reply)
        if kind != "interrupted":
            return
        lost = interruption_of(content)
        for name, state in self._workers.items():
            if state.name == caller.calls[lost.component] and not state.lost:
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
        for name, state in self._workers.items():
            if not self._awaited and state.what == "boot" and state.waits:
                self._ask(name, "take", [values for of, values in self._values.items() if of != name])

    def _lose(self, name: str, why: str, error: RoostError | None = None) -> None:
        self._workers[name].asked, self._workers[name].lost = None, True
        self._events.append(Gone(worker=name, why=why, error=error))

    def _look(self) -> None:
        """Asks all workers what they do, now and then; who shows nothing for too long is lost.

        Time in which nobody could have seen a sign, since this process was stopped, doesn't count.
        """
        before_s, self._now_s = self._now_s, time.monotonic()
        passed_s = min(self._now_s - before_s, _LOOK_S)
        for name, state in self._workers.items():
            state.silent_s += passed_s
            state.unseen_s += passed_s
            if state.lost:
                continue
            if state.silent_s > self._placements[name].heartbeat_timeout_s:
                self._ray.kill(state.actor, no_restart=True)
                self._lose(name, f"it showed no sign of life for {self._placements[name].heartbeat_timeout_s:.0f} s")
            elif state.look is None and state.unseen_s > _LOOK_S:
                state.look = state.actor.progress.options(concurrency_group=LOOKED_AT).remote()
                state.unseen_s = 0.0

    def _see(self, name: str, reference: Any) -> None:
        """What a look at a worker found. One that waits is alive when it answers; one at work, when it gets on.

        One that waits for another's answer does so: if the other hangs, that is the other's.
        """
        state = self._workers[name]
        state.look = None
        try:
            progress, answers, calls = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            if state.waits:  # else its call tells
                self._lose(name, self._why(name, why_no_reply(self._ray, error)))
            return
        found, works = json.loads(progress), answers or state.asked is not None
        if found["beats"] != state.beats or calls or not works:
            state.beats, state.silent_s = found["beats"], 0.0
        if state.asked is not None:
            self._on_progress(name, found)

    def _why(self, name: str, told: str) -> str:
        """Why a worker is lost whose call gave no reply, of which that is ``told``."""
        _log.info("%s: %s", name, told)
        node = self._placements[name].node
        if not any(each["NodeID"] == node.key and each["Alive"] for each in self._ray.nodes()):
            return f"its node, {node.name}, is gone"
        return told
