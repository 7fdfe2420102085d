"""A worker in its process: its plan checked on its machine, loaded, and its visits served as bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from roost.api.fleets.opened import OpenedFiles
from roost.api.requests.request import PlannedGeneration
from roost.api.runs.elsewhere.outputs import done_of
from roost.api.runs.kept import versions
from roost.api.runs.pipeline import Among, open_pipeline
from roost.api.runs.ready import ReadyPlan, check_model, check_worker
from roost.errors import InvalidFile, NothingFits, PlanMismatch, RoostError, UsageError
from roost.facts.machine import PROCESS_BYTES
from roost.option_spelling import at_a_shell, option
from roost.plan import PlanDocument
from roost.plan.strict_yaml import validated, yaml_mapping
from roost.probes.machine.host import memory_nodes, peak_rss_bytes, read_host
from roost.temporary import sweep
from roost.units import format_bytes

if TYPE_CHECKING:
    from roost.fleet.tasks import Done, Task
    from roost.fleet.worker import Send, Worker
    from roost.residency.engine.stages import StageEvent
    from roost.residency.run.generate import Generation
    from roost.residency.run.kept.keeper import Resumed
    from roost.residency.weights.shared.masters import SharedMasters


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """What a worker is told at its start: the fleet's plan as YAML, which of its workers it is, and where it is.

    ``folder`` is what the workers of its host have in common: masters, and what requests have got so far.
    ``host_bytes`` is the memory that all of them take there, ``versions`` are the driver's libraries.
    """

    plan: str
    name: str
    model: str | None
    device: str | None
    force: bool
    folder: str
    host_bytes: int
    versions: Mapping[str, str]


class PipelineServer:
    """Serves one worker's calls; only bytes and text come in and go out."""

    def __init__(self, send: Send | None = None) -> None:
        self._send = send
        self._worker: Worker | None = None
        self._ready: ReadyPlan | None = None
        self._opened: OpenedFiles | None = None
        self._shared: SharedMasters | None = None
        self._peak_bytes = 0
        self._doing: dict[str, object] = {"what": "starting", "step": None, "steps": None}
        self._beats = 0

    def boot(self, spec: str) -> bytes:
        """Loads the worker's components; its small weights, or what failed. Both are tagged."""
        from roost.fleet.pool import failure, tagged

        try:
            found = json.loads(spec)
            _check_versions(found["versions"])
            with at_a_shell():  # what it refuses stands on the driver's screen
                return tagged("done", self._boot(WorkerSpec(**found)))
        except Exception as error:  # whatever it is, its text is all that may leave this process
            return failure(error)

    def _boot(self, spec: WorkerSpec) -> bytes:
        from roost.fleet.plans import plan_of, whole_plan
        from roost.fleet.worker import Worker

        sweep()  # what an earlier worker left on this host
        document = validated(yaml_mapping(spec.plan.encode(), "plan"), PlanDocument, "plan")
        whole = whole_plan(document)
        record = next(each for each in document.workers if each.name == spec.name)
        try:
            checked = check_model(whole, model=spec.model, device=spec.device, force=spec.force)
        except (UsageError, InvalidFile) as error:  # what the driver found to be right isn't so on this host
            raise PlanMismatch(str(error)) from error
        self._ready = check_worker(checked, plan_of(document, record))
        _check_host(spec, self._ready)
        mine = self._ready.plan.components
        away = {name: each for name, each in checked.plan.components.items() if name not in mine}
        self._opened, folder = OpenedFiles(self._ready.model_dir), Path(spec.folder)
        self._shared = _shared_below(folder)
        among = Among(away=away, shared=self._shared)
        with self._opened.noting():
            held = open_pipeline(self._ready, self._on_component, self._on_event, among=among)
        self._worker = Worker(held, folder, self._send)
        self._doing = {"what": "waiting", "step": None, "steps": None}
        return self._worker.values()

    def take(self, values: bytes) -> None:
        """Takes another worker's small weights."""
        self._there.take(values)

    def visit(self, task: bytes) -> bytes:
        """Serves one visit; the tagged reply."""
        from roost.fleet.pool import failure, tagged
        from roost.fleet.tasks import Onward, Task

        try:
            asked = Task.unpack(task)
            self._tell(f"{asked.shown}: begins")
            with at_a_shell():  # as above
                outcome = self._there.visit(asked)
            self._note_peak()
            if isinstance(outcome, Onward):
                return tagged("onward", outcome.pack())
            return tagged("done", self._finished(asked, *outcome).pack())
        except Exception as error:  # as above
            return failure(error)
        finally:
            self._tell("waiting")

    def answer(self, component: str, question: bytes) -> bytes:
        """The tagged answer to another worker's call of a component."""
        from roost.fleet.pool import failure, tagged

        try:
            self._tell(f"{component}, called from another worker")
            return tagged("done", self._there.answer(question))
        except Exception as error:  # as above
            return failure(error)
        finally:
            self._note_peak()
            self._tell("waiting")

    def progress(self) -> str:
        """What it is doing, in which process, and how many signs of life there were, as JSON."""
        return json.dumps({**self._doing, "beats": self._beats, "pid": os.getpid()})

    def report(self) -> str:
        """What it has read and taken so far, as JSON."""
        assert self._ready is not None, "asked of a worker that serves"
        assert self._opened is not None
        assert self._shared is not None
        report = {
            "files_read": self._opened.names(self._ready.plan, self._shared.taken),
            "peak_bytes": self._peak_bytes,
            "host_peak_bytes": peak_rss_bytes() or 0,
            "changes": [*self._ready.changes, *self._there.held.changes],
        }
        return json.dumps(report)

    @property
    def _there(self) -> Worker:
        if self._worker is None:
            raise RoostError("the worker has not loaded.")
        return self._worker

    def _finished(self, task: Task, generation: Generation, resumed: Resumed | None) -> Done:
        """The request's outputs, sent as what their files hold."""
        assert self._ready is not None
        return done_of(self._ready, task.call, tuple(_wanted(task)), generation, resumed)

    def _on_component(self, name: str) -> None:
        self._tell(f"loading {name}")

    def _on_event(self, event: StageEvent) -> None:
        self._tell(f"{event.stage} · {event.component}", event.step, event.steps)

    def _tell(self, what: str, step: int | None = None, steps: int | None = None) -> None:
        self._doing = {"what": what, "step": step, "steps": steps}
        self._beats += 1

    def _note_peak(self) -> None:
        peaks = [each.peak_bytes for each in self._there.held.stages]
        self._peak_bytes = max([self._peak_bytes, *peaks])


def _check_versions(driver: Mapping[str, str]) -> None:
    """Raises PlanMismatch where this host's libraries are others than the driver's: bits would differ."""
    here = versions()
    others = [
        f"{name} {here[name]} here and {driver.get(name)} there" for name in here if here[name] != driver.get(name)
    ]
    if others:
        raise PlanMismatch(
            f"its libraries are others than those where the command runs ({'; '.join(others)}); install the same."
        )


def _check_host(spec: WorkerSpec, ready: ReadyPlan) -> None:
    """The first worker of a host says for all of them whether its memory is enough. Raises NothingFits where not."""
    try:
        os.close(os.open(Path(spec.folder) / "host-checked", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    host = read_host(device_kind=ready.device_kind)
    # What is available was taken for masters and one process's need; the figure is of all processes.
    needed_bytes = spec.host_bytes - PROCESS_BYTES[ready.device_kind]
    if needed_bytes > host.available_bytes and not spec.force:
        raise NothingFits(
            f"its workers take {format_bytes(needed_bytes)} of host memory and {format_bytes(host.available_bytes)} is"
            f" available ({host.source}); free host memory, plan for less with {option('ram')}, or run with"
            f" {option('force', True)}."
        )


def _shared_below(folder: Path) -> SharedMasters:
    from roost.residency.weights.shared.masters import SharedMasters  # imported here: it brings torch

    place = folder / "masters"
    place.mkdir(exist_ok=True)
    return SharedMasters(place, memory_nodes())


def _wanted(task: Task) -> Iterator[PlannedGeneration]:
    """The task's outputs, of which only their names are known here."""
    texts = task.call.group or ((task.call.prompt, task.call.seed),)
    for (prompt, seed), name in zip(texts, task.outputs, strict=True):
        output = None if name is None else Path(name)
        yield PlannedGeneration(prompt=prompt, number=None, seed=seed, output=output, group=task.call.group)
