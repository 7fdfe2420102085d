"""The driver of a fleet's run: requests sent on their way, outputs saved and noted as they arrive."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from roost.api.measurements.run_records import (
    GenerationRecord,
    LoraRecord,
    ResumedRecord,
    RunRecord,
    WorkerRunRecord,
    summed_stages,
)
from roost.api.requests.request import PlannedCall, PlannedGeneration, RunRequest
from roost.api.runs.call import CheckedCall, check_call
from roost.api.runs.elsewhere.outputs import save_done
from roost.api.runs.kept import Books
from roost.api.runs.made import Made, record_of
from roost.api.runs.ready import ReadyPlan, check_model, workload_of_run
from roost.errors import RoostError, UsageError
from roost.facts.loras import LoraFile
from roost.option_spelling import option
from roost.plan import PlanDocument
from roost.plan.fleet import WorkerRecord

if TYPE_CHECKING:
    from roost.fleet.dispatch import Event, Step
    from roost.fleet.pool import WorkerPool
    from roost.fleet.tasks import Done, Onward, Task
    from roost.residency.engine.stages import StageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRun:
    """What a fleet is to run: its plan, and the whole plan checked against the model; ``on_note`` hears of losses."""

    document: PlanDocument
    ready: ReadyPlan
    request: RunRequest
    on_note: Callable[[str], None]


def check_fleet(document: PlanDocument, *, model: str | None, device: str | None, force: bool) -> ReadyPlan:
    """The whole plan of a fleet, checked against the model that the driver sees. Raises UsageError for another plan."""
    from roost.fleet.plans import whole_plan
    from roost.fleet.routes import worker_roles

    if document.layout == "fsdp":
        raise UsageError(
            f"this plan is for ranks of torchrun, which {option('on', 'ray')} doesn't start; leave it out."
        )
    if not document.workers:
        raise UsageError("--on is for plans that roost plan --fleet makes, and this is none; leave it out.")
    roles = worker_roles(document)
    if not (any(each.denoises for each in roles) and any(each.decodes for each in roles)):
        raise UsageError("no worker of this plan denoises, or none decodes; plan the fleet again with --fleet.")
    return check_model(whole_plan(document), model=model, device=device, force=force)


def run_fleet(run: FleetRun, start_pool: Callable[[], WorkerPool]) -> RunRecord:
    """Runs what is left of the request on the pool that it starts; outputs are saved here as they arrive.

    A request that fails by itself is told and leaves the others alone; the first such error is raised at the end.
    Raises what the single run does, and RoostError where workers can't be had.
    """
    workload_of_run(run.ready.plan, run.request)
    checked = check_call(run.ready, run.request)
    ready = replace(run.ready, changes=(*run.ready.changes, *checked.beyond))
    books = Books.opened(ready, run.request, checked, run.on_note)
    if not books.left:
        return record_of(ready, checked, books.records({}), Made(latents=books.latents))
    pool = start_pool()  # which may start a cluster
    began_s = time.perf_counter()
    executor = _PoolExecutor(run, checked, books, pool)
    executor.run()
    executor.note_reports()
    if executor.failed:
        raise executor.failed[min(executor.failed)]
    passed_s = time.perf_counter() - began_s - executor.load_s
    made = Made(load_s=executor.load_s, passed_s=passed_s, changes=executor.changes, latents=books.latents)
    record = record_of(ready, checked, books.records(executor.records), made)
    return replace(record, workers=executor.worker_records, loras=tuple(_loras(ready.plan, checked.loras)))


def _loras(plan: PlanDocument, files: Sequence[LoraFile]) -> Iterator[LoraRecord]:
    """The plan's LoRAs, as its workers have them."""
    from roost.pipelines.adapters import adapter_names

    for file, adapter in zip(files, adapter_names(files), strict=True):
        mine = [each for each in plan.loras if (each.sha256, each.scale) == (file.sha256, file.scale)]
        beside = tuple(each.component for each in mine if not each.fused)
        yield LoraRecord(
            path=str(file.path),
            sha256=file.sha256,
            scale=file.scale,
            components=tuple(each.component for each in mine),
            beside=beside,
            adapter=adapter if beside else None,
        )


@dataclass(slots=True)
class _Underway:
    """A call on its way: its task, the latents that it began with, what its visits took, and when the first began."""

    wanted: PlannedCall
    task: Task
    kept: bytes
    began_s: float = 0.0
    stages: list[StageRecord] = field(default_factory=list)
    nan_components: list[str] = field(default_factory=list)
    been: set[object] = field(default_factory=set)  # what it went on for, with how much


class _PoolExecutor:
    """Between the dispatcher, which knows names and bytes, and the run's books."""

    def __init__(self, run: FleetRun, checked: CheckedCall, books: Books, pool: WorkerPool) -> None:
        from roost.fleet.dispatch import Dispatcher
        from roost.fleet.routes import worker_roles

        self.records: dict[PlannedGeneration, GenerationRecord] = {}
        self.failed: dict[int, RoostError] = {}
        self.changes: list[str] = []
        self.load_s = 0.0
        self.worker_records: tuple[WorkerRunRecord, ...] = ()
        self._run, self._checked, self._books, self._pool = run, checked, books, pool
        self._roles = worker_roles(run.document)
        self._underway: dict[int, _Underway] = {}
        self._through = False  # whether what denoises must call others
        self._at: dict[str, int] = {}  # which request a worker has
        self._began_s = time.perf_counter()
        self._dispatcher = Dispatcher(
            executor=self, workers=self._roles, on_done=self._done, on_failed=self._fail, on_note=run.on_note
        )

    def run(self) -> None:
        self._dispatcher.run(self._requests())

    # What the dispatcher asks of it.

    def start(self, worker: str, request: int, task: bytes) -> None:
        self._at[worker] = request
        underway = self._underway[request]
        underway.began_s = underway.began_s or time.perf_counter()
        self._pool.start(worker, task)

    def restart(self, worker: str) -> None:
        self._pool.restart(worker)

    def give_up(self, worker: str) -> None:
        self._pool.give_up(worker)

    def wait(self) -> Sequence[Event]:
        from roost.fleet.dispatch import Lost, Up
        from roost.fleet.pool import Gone, Serving

        events: list[Event] = []
        for told in self._pool.wait():
            if isinstance(told, Serving):
                self.load_s = self.load_s or time.perf_counter() - self._began_s
                events.append(Up(worker=told.worker))
            elif isinstance(told, Gone):
                if told.error is not None and not self.load_s:  # what it can't load now, it can't load again
                    raise type(told.error)(f"{self._where(told.worker)}: {told.error}")
                events.append(Lost(worker=told.worker, why=told.why))
            else:
                events.append(self._replied(told.worker, told.reply))
        return events

    def note_reports(self) -> None:
        """Takes down what the workers say of themselves."""
        found = {name: json.loads(text) for name, text in self._pool.reports().items()}
        records = []
        for each in self._run.document.workers:
            report = found.get(each.name, {})
            self.changes += [f"{each.name}: {change}" for change in report.get("changes", ())]
            records.append(self._record(each, report))
        self.worker_records = tuple(records)

    def _record(self, worker: WorkerRecord, report: Mapping[str, object]) -> WorkerRunRecord:
        return WorkerRunRecord(
            name=worker.name,
            host=worker.host,
            role=worker.role,
            components=tuple(worker.components),
            files_read=tuple(report.get("files_read", ())),  # type: ignore[arg-type]
            peak_bytes=int(report.get("peak_bytes", 0)),  # type: ignore[call-overload]
            host_peak_bytes=int(report.get("host_peak_bytes", 0)),  # type: ignore[call-overload]
            requests=self._dispatcher.served[worker.name],
            restarts=self._dispatcher.restarts[worker.name],
        )

    def _where(self, name: str) -> str:
        worker = next(each for each in self._run.document.workers if each.name == name)
        return f"{name} on {worker.host}"

    # Requests and what comes of them.

    def _requests(self) -> Iterator[tuple[int, Step]]:
        from roost.fleet.dispatch import Step
        from roost.fleet.routes import first_workers
        from roost.fleet.tasks import Task
        from roost.residency.run.kept.files import shown_generation

        first = first_workers(self._roles, self._run.ready.plan)
        for number, wanted in enumerate(self._books.left):
            key, latents = self._books.kept.task_of(wanted[0])
            task = Task(
                call=self._checked.call_for(wanted),
                key=key,
                shown=shown_generation(wanted[0].prompt, wanted[0].seed),
                outputs=[None if each.output is None else each.output.name for each in wanted],
                latents=latents,
            )
            self._underway[number] = _Underway(wanted, task, latents)
            yield number, Step(workers=first, task=task.pack())

    def _replied(self, worker: str, reply: bytes) -> Event:
        from roost.fleet.dispatch import Arrived, Failed, Interrupted, Lost
        from roost.fleet.pool import failure_of, interruption_of, untagged
        from roost.fleet.tasks import Done, Onward

        kind, content = untagged(reply)
        number = self._at[worker]
        if kind == "failed":
            return Failed(worker=worker, why=failure_of(content))
        if kind == "lost":
            return Lost(worker=worker, why=str(failure_of(content)))
        if kind == "interrupted":
            return Interrupted(worker=worker, why=str(interruption_of(content)))
        if kind == "onward":
            return self._onward(number, worker, Onward.unpack(content))
        self._save(number, Done.unpack(content))
        return Arrived(worker=worker, next=None)

    def _onward(self, number: int, worker: str, onward: Onward) -> Event:
        """Where the request goes on; it fails where it would go in circles.

        Once a request had to be denoised anew, to call what it needs in the middle, later ones call it at once.
        """
        from roost.fleet.dispatch import Arrived, Failed, Step
        from roost.fleet.routes import called_owners, next_workers
        from roost.residency.hold.away import WITHOUT_ROLES

        request = self._underway[number]
        request.stages += onward.stages
        request.nan_components += onward.nan_components
        if onward.latents and onward.latents != request.task.latents:
            self._books.kept.keep(request.wanted[0], onward.latents)
        self._through |= onward.through
        if self._through and self._run.ready.plan.components[onward.component].kind == "dit":
            onward = replace(onward, through=True, latents=b"")
        been = (onward.component, onward.decodes, onward.through, len(onward.answers), bool(onward.latents))
        if been in request.been:
            why = f"the pipeline needs {onward.component} again on {worker}, with nothing new; {WITHOUT_ROLES}."
            return Failed(worker=worker, why=RoostError(why))
        request.been.add(been)
        request.task = replace(request.task, answers=onward.answers, latents=onward.latents, through=onward.through)
        calls = called_owners(self._roles, self._run.ready.plan) if onward.through else ()
        step = Step(workers=next_workers(self._roles, onward), task=request.task.pack(), calls=calls)
        return Arrived(worker=worker, next=step)

    def _save(self, number: int, done: Done) -> None:
        request = self._underway[number]
        stages = tuple(summed_stages((*request.stages, *done.stages)))
        nan = tuple(dict.fromkeys((*request.nan_components, *done.nan_components)))
        resumed = None
        if done.resumed is not None and request.kept and request.task.latents == request.kept:
            resumed = ResumedRecord(output=str(request.wanted[0].output), stage=done.resumed[0], step=done.resumed[1])
        seconds = time.perf_counter() - request.began_s
        done = replace(done, stages=stages, nan_components=nan, seconds=seconds)
        self.records |= save_done(self._books, request.wanted, done, resumed)

    def _done(self, number: int) -> None:
        del self._underway[number]

    def _fail(self, number: int, why: RoostError) -> None:
        request = self._underway.pop(number)
        self.failed[number] = why
        self._run.on_note(f"{request.task.shown} failed: {why}")
