"""Workers of Ray's that load nothing and do as their task says, and a cluster of several nodes to run them on."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from roost.errors import OutOfMemory, RoostError
from roost.fleet.dispatch import Arrived, Dispatcher, Event, Failed, Interrupted, Lost, Step, Up, WorkerRole
from roost.fleet.pool import Gone, Serving, WorkerLost, failure, failure_of, interruption_of, tagged, untagged
from roost.fleet.ray_cluster import Cluster
from roost.fleet.ray_pool import ActorPlacement, RayPool

TIMEOUT_S = 60.0
DIES = "dies as it starts"  # a worker whose placement has this to say
_STARTS = 3
NODE = {"num_cpus": 4, "object_store_memory": 100 * 1024**2, "include_dashboard": False}


def task(do: str, marker: Path | None = None, **more: object) -> bytes:
    """What a server is to do; with ``marker``, of which it makes a file, only the first time."""
    return json.dumps({"do": do, "marker": None if marker is None else str(marker), **more}).encode()


class ToyServer:
    """Finishes, dies, stops, hangs, runs out of memory, fails, or asks the worker with a component.

    What it asks that one to do is what its task has as ``question``.
    """

    def __init__(self, send: Callable[[str, bytes], bytes]) -> None:
        self._send, self._beats = send, 0

    def boot(self, spec: str) -> bytes:
        if spec == DIES:
            os.kill(os.getpid(), signal.SIGKILL)
        return tagged("done", b"")

    def take(self, values: bytes) -> None: ...

    def visit(self, raw: bytes) -> bytes:
        asked = json.loads(raw)
        self._beats += 1
        if asked["marker"] is not None:
            if os.path.exists(asked["marker"]):
                return tagged("done", b"")
            Path(asked["marker"]).write_text(str(os.getpid()))
        try:
            return tagged("done", self._do(asked["do"], asked))
        except RoostError as error:
            return failure(error)

    def _do(self, what: str, asked: Mapping[str, Any]) -> bytes:
        if what in ("die", "stop"):
            os.kill(os.getpid(), signal.SIGKILL if what == "die" else signal.SIGSTOP)
        time.sleep(3600 if what == "hang" else asked.get("seconds", 0))
        if what == "run out of memory":
            raise OutOfMemory("no memory is left.")
        if what == "fail":
            raise RoostError("it can't be done.")
        return self._ask(asked["question"].encode()) if what == "ask" else b""

    def _ask(self, question: bytes) -> bytes:
        kind, content = untagged(self._send("part", question))
        if kind == "lost":
            raise WorkerLost("part", str(failure_of(content)))
        return content

    def answer(self, component: str, question: bytes) -> bytes:
        return self.visit(question)

    def progress(self) -> str:
        return json.dumps({"what": "toys", "step": None, "steps": None, "beats": self._beats, "pid": os.getpid()})

    def report(self) -> str:
        return "{}"


class ToyFleet:
    """Toy workers on a cluster: ``run`` serves tasks, by their number, and says how each ended.

    With ``roles`` none does another's work.
    """

    def __init__(
        self, cluster: Cluster, nodes: Mapping[str, int], owner: str = "", dying: str = "", roles: bool = False
    ) -> None:
        self.placements = {
            name: ActorPlacement(
                node=cluster.nodes[number], card=None, spec=DIES if name == dying else "", heartbeat_timeout_s=TIMEOUT_S
            )
            for name, number in nodes.items()
        }
        owners = {"part": (owner,)} if owner else {}
        self.calls = tuple(owners.values())
        self.ended: dict[int, str] = {}
        self.notes: list[str] = []
        self.on_up: Callable[[str], None] = lambda _: None
        self.pool = RayPool(cluster, self.placements, owners, ToyServer, lambda *_: None)
        roles_of_all = [
            WorkerRole(name=name, components=frozenset({name} if roles else ()), decodes=True, denoises=True)
            for name in nodes
        ]
        self.dispatcher = Dispatcher(
            executor=self, workers=roles_of_all, on_done=self._done, on_failed=self._failed, on_note=self.notes.append
        )

    def run(self, tasks: Sequence[tuple[bytes, tuple[str, ...]]]) -> dict[int, str]:
        self.dispatcher.run(enumerate(Step(workers=names, task=raw, calls=self.calls) for raw, names in tasks))
        return self.ended

    def pid(self, worker: str) -> int:
        """Of its process that is there now."""
        state = self.pool._workers[worker]
        found: int = json.loads(self.pool._ray.get(state.actor.progress.remote())[0])["pid"]
        return found

    # What the dispatcher asks of it.

    def start(self, worker: str, request: int, raw: bytes) -> None:
        self.pool.start(worker, raw)

    def restart(self, worker: str) -> None:
        self.pool.restart(worker)

    def give_up(self, worker: str) -> None:
        self.pool.give_up(worker)

    def wait(self) -> list[Event]:
        return [self._event(told) for told in self.pool.wait()]

    def _event(self, told: Any) -> Event:
        if isinstance(told, Serving):
            self.on_up(told.worker)
            return Up(worker=told.worker)
        if isinstance(told, Gone):
            return Lost(worker=told.worker, why=told.why)
        kind, content = untagged(told.reply)
        if kind == "failed":
            return Failed(worker=told.worker, why=failure_of(content))
        if kind == "lost":
            return Lost(worker=told.worker, why=str(failure_of(content)))
        if kind == "interrupted":
            return Interrupted(worker=told.worker, why=str(interruption_of(content)))
        return Arrived(worker=told.worker, next=None)

    def _done(self, number: int) -> None:
        self.ended[number] = "done"

    def _failed(self, number: int, why: RoostError) -> None:
        self.ended[number] = str(why)


@contextmanager
def nodes_of_ray(count: int, folder: Path) -> Iterator[Any]:
    """``ray.cluster_utils.Cluster`` with so many nodes on this machine, whose temporary files are in ``folder``."""
    (folder / "ray").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TMPDIR", str(folder))
        patched.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for workers' servers that tests have
        nodes = _head()
        for _ in range(count - 1):
            nodes.add_node(**NODE)
    try:
        yield nodes
    finally:
        nodes.shutdown()


def _head() -> Any:
    """A cluster with its first node."""
    from ray.cluster_utils import Cluster as Nodes  # imported here: most that import this module have no Ray

    for attempt in range(_STARTS):
        try:
            return Nodes(initialize_head=True, head_node_args=NODE)
        except Exception:  # its start has 30 s, which a busy machine may need
            if attempt == _STARTS - 1:
                raise
    return None
