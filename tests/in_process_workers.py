"""The workers of a fleet's plan in one process, one at a time: all of a fleet's run but processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from roost.api.fleets.desk import WorkerDesk, WorkerSpec
from roost.api.fleets.run import FleetRun, run_fleet
from roost.api.measurements.run_records import RunRecord
from roost.api.requests.request import RunRequest
from roost.api.runs.kept import versions
from roost.api.runs.ready import check_model
from roost.fleet.hands import Gone, Replied, Serving, Word, WorkerLost, failure_of, interruption_of, untagged
from roost.fleet.plans import whole_plan
from roost.fleet.routes import owners_of, posts_of
from roost.plan import PlanDocument, plan_to_yaml


class InProcess:
    """Hands whose desks are here. ``visits`` are (worker, bytes that came, bytes that went), in order.

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
        self.desks: dict[str, WorkerDesk] = {}
        self._document, self._folder, self._lose = document, folder, dict(lose or {})
        self._lose_called = dict(lose_called or {})
        owners = owners_of(posts_of(document), whole_plan(document))
        self._owners = {component: names[0] for component, names in owners.items()}
        self._asked: list[tuple[str, bytes]] = []
        self._values: dict[str, bytes] = {}
        self._words: list[Word] = []
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

    def leave(self, worker: str) -> None: ...

    def wait(self) -> Sequence[Word]:
        if not self._words:
            worker, task = self._asked.pop(0)
            why = self._lose.pop(len(self.visits), None)
            reply = b"" if why else self.desks[worker].visit(task)
            self.visits.append((worker, len(task), len(reply)))
            if why is None and untagged(reply)[0] == "interrupted":
                lost = interruption_of(untagged(reply)[1])
                self._words.append(Gone(worker=self._owners[lost.component], why=lost.why))
            self._words.append(Gone(worker=worker, why=why) if why else Replied(worker=worker, reply=reply))
        words, self._words = self._words, []
        return words

    def reports(self) -> dict[str, str]:
        return {name: desk.report() for name, desk in self.desks.items()}

    def _boot(self, name: str) -> None:
        self.desks[name] = WorkerDesk(self._send)
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
        kind, content = untagged(self.desks[name].boot(json.dumps(asdict(spec))))
        if kind != "done":
            raise failure_of(content)
        self._values[name] = content

    def _take(self, name: str) -> None:
        for of, values in self._values.items():
            if of != name:
                self.desks[name].take(values)
        self._words.append(Serving(worker=name))

    def _send(self, component: str, question: bytes) -> bytes:
        why = self._lose_called.pop(len(self.answered), None)
        self.answered.append((self._owners[component], component))
        if why is not None:
            raise WorkerLost(component, why)
        return self.desks[self._owners[component]].answer(component, question)


def run_in_process(
    document: PlanDocument, request: RunRequest, hands: Callable[[], InProcess], notes: list[str]
) -> RunRecord:
    """The plan's request on such workers."""
    ready = check_model(whole_plan(document))
    return run_fleet(FleetRun(document=document, ready=ready, request=request, on_note=notes.append), hands)
