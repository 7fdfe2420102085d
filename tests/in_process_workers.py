"""The workers of a fleet's plan in one process, one at a time: all of a fleet's run but processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from roost.api.fleets.run import FleetRun, run_fleet
from roost.api.fleets.server import PipelineServer, WorkerSpec
from roost.api.measurements.run_records import RunRecord
from roost.api.requests.request import RunRequest
from roost.api.runs.kept import versions
from roost.api.runs.ready import check_model
from roost.fleet.plans import whole_plan
from roost.fleet.pool import Gone, PoolEvent, Replied, Serving, WorkerLost, failure_of, interruption_of, untagged
from roost.fleet.routes import owners_of, worker_roles
from roost.plan import PlanDocument, plan_to_yaml


class InProcess:
    """A pool whose servers are here. ``visits`` are (worker, bytes that came, bytes that went), in order.

    ``lose`` says of a visit, by its number, why its worker is lost in it, ``lose_called`` of an answer to another
    worker why the one that is to give it is; ``models`` are directories of workers that have the model elsewhere.
    """

    versions: Mapping[str, str] = versions()

    def __init__(
        self,
        document: PlanDocument,
        folder: Path,
        lose: Mapping[int, str] | None = None,
        models: Mapping[str, Path] | None = None,
        lose_called: Mapping[int, str] | None = None,
    ) -> None:
        self.visits: list[tuple[str, int, int]] = []
        self.answered: list[tuple[str, str]] = []  # worker and component of calls that came from others
        self.servers: dict[str, PipelineServer] = {}
        self._document, self._folder, self._lose = document, folder, dict(lose or {})
        self._lose_called = dict(lose_called or {})
        owners = owners_of(worker_roles(document), whole_plan(document))
        self._owners = {component: names[0] for component, names in owners.items()}
        self._asked: list[tuple[str, bytes]] = []
        self._values: dict[str, bytes] = {}
        self._events: list[PoolEvent] = []
        self._models = {name: str(path) for name, path in (models or {}).items()}
        for each in document.workers:
            self._boot(each.name)
        for each in document.workers:
            self._take(each.name)

    def start(self, worker: str, task: bytes) -> None:
        self._asked.append((worker, task))

    def restart(self, worker: str) -> None:
        self._boot(worker)
        self._take(worker)

    def give_up(self, worker: str) -> None: ...

    def wait(self) -> Sequence[PoolEvent]:
        if not self._events:
            worker, task = self._asked.pop(0)
            why = self._lose.pop(len(self.visits), None)
            reply = b"" if why else self.servers[worker].visit(task)
            self.visits.append((worker, len(task), len(reply)))
            if why is None and untagged(reply)[0] == "interrupted":
                lost = interruption_of(untagged(reply)[1])
                self._events.append(Gone(worker=self._owners[lost.component], why=lost.why))
            self._events.append(Gone(worker=worker, why=why) if why else Replied(worker=worker, reply=reply))
        events, self._events = self._events, []
        return events

    def reports(self) -> dict[str, str]:
        return {name: server.report() for name, server in self.servers.items()}

    def _boot(self, name: str) -> None:
        self.servers[name] = PipelineServer(self._send)
        spec = WorkerSpec(
            plan=plan_to_yaml(self._document),
            name=name,
            model=self._models.get(name),
            device=None,
            force=False,
            folder=str(self._folder),
            host_bytes=0,
            versions=self.versions,
        )
        kind, content = untagged(self.servers[name].boot(json.dumps(asdict(spec))))
        if kind != "done":
            raise failure_of(content)
        self._values[name] = content

    def _take(self, name: str) -> None:
        for of, values in self._values.items():
            if of != name:
                self.servers[name].take(values)
        self._events.append(Serving(worker=name))

    def _send(self, component: str, question: bytes) -> bytes:
        why = self._lose_called.pop(len(self.answered), None)
        self.answered.append((self._owners[component], component))
        if why is not None:
            raise WorkerLost(component, why)
        return self.servers[self._owners[component]].answer(component, question)


def run_in_process(
    document: PlanDocument, request: RunRequest, start_pool: Callable[[], InProcess], notes: list[str]
) -> RunRecord:
    """The plan's request on such workers."""
    ready = check_model(whole_plan(document))
    return run_fleet(FleetRun(document=document, ready=ready, request=request, on_note=notes.append), start_pool)
