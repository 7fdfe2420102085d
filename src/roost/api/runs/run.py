"""Running: a checked plan loaded, its generations made, saved and recorded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from roost.api.measurements.learned import learn_from_run
from roost.api.measurements.run_records import (
    GenerationRecord,
    RehearsedRecord,
    RunRecord,
    TextsRecord,
    summed_stages,
)
from roost.api.plans.update import update_plan
from roost.api.requests.request import PlannedGeneration, RunRequest
from roost.api.runs.call import CheckedCall, check_call
from roost.api.runs.disturbances import watched
from roost.api.runs.elsewhere.outputs import done_of, save_done
from roost.api.runs.elsewhere.rounds import Round, Rounds
from roost.api.runs.finished import save_generation
from roost.api.runs.kept import Books
from roost.api.runs.made import Made, generation_record, parts_of, record_of
from roost.api.runs.pipeline import given_files, open_pipeline
from roost.api.runs.ready import ReadyPlan, with_all_masters, without_decoding
from roost.api.runs.recording import recorded
from roost.api.runs.rehearsal import Rehearsal, prepared, rehearse_run
from roost.plan import PlanDocument

if TYPE_CHECKING:
    from roost.pipelines.calls import GenerationRequest
    from roost.residency.engine.stages import OnEvent
    from roost.residency.hold.attach import Held
    from roost.residency.run.components import LoadComponent
    from roost.residency.run.loader import OnComponent
    from roost.residency.run.loras import AppliedLora
    from roost.residency.run.texts_ahead import TextsAhead

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """Who hears of a run while it goes on: ``on_generation`` of a call's first, the call's number and how many.

    ``on_note`` hears of what was kept and can't be used, and of what can't be kept; ``on_rehearsal`` of a stage when it
    is tried, and of what it took then. ``trace_out`` is a file for the measured timeline.
    """

    on_component: OnComponent | None = None
    on_event: OnEvent | None = None
    on_generation: Callable[[PlannedGeneration, int, int], None] | None = None
    on_note: Callable[[str], None] | None = None
    on_rehearsal: Callable[[str, RehearsedRecord | None], None] | None = None
    trace_out: Path | None = None

    def note(self, text: str) -> None:
        """Tells whoever hears of notes."""
        if self.on_note is not None:
            self.on_note(text)


def run_plan(
    ready: ReadyPlan, request: RunRequest, listeners: Listeners | None = None, plan_file: Path | None = None
) -> RunRecord:
    """Loads once, then generates and saves one after another; what memory did not allow goes back into ``plan_file``.

    Of several generations the texts are encoded first, and those that an earlier run finished are not made again.
    Raises OutOfMemory, and UsageError for an option that the pipeline can't take. What was saved before stays.
    """
    checked = check_call(ready, request)
    ready = replace(ready, changes=(*ready.changes, *checked.beyond))
    if request.output_type == "latent":
        ready = without_decoding(ready)
    listeners = listeners or Listeners()
    if ready.group is not None:
        request = _of_rank(request, listeners)
    books = Books.opened(ready, request, checked, listeners.on_note)
    if not books.left:
        return record_of(ready, checked, books.records({}), Made(latents=books.latents))
    rehearsal = None
    if request.rehearse and not books.kept.is_denoised(books.left[0][0]):
        decodes = request.output_type != "latent"
        rehearsal = prepared(ready, checked.workload, decodes=decodes, on_note=listeners.note)
    made = _make(ready, checked, listeners, books, rehearsal)
    made.latents = books.latents
    if plan_file is not None and made.demotions:
        update_plan(plan_file, made.demotions)
    record = record_of(ready, checked, books.records(made.records), made)
    remembered = learn_from_run(ready.plan, checked.workload, record)
    return replace(record, compared=remembered.document())


def _of_rank(request: RunRequest, listeners: Listeners) -> RunRequest:
    """The request as one of several processes follows it."""
    if request.output is not None:
        listeners.note("of what isn't finished nothing is kept: the shards' processes begin a generation at its start.")
    return replace(request, resume=False, rehearse=False)


def _make(
    ready: ReadyPlan, checked: CheckedCall, listeners: Listeners, books: Books, rehearsal: Rehearsal | None
) -> Made:
    """Loads the pipeline and makes what is left, each saved and noted before the next one begins."""
    from roost.residency.run.loras import LoraLoader  # imported here: these bring torch
    from roost.residency.run.texts_ahead import TextsAhead

    made = Made()
    rounds = Rounds(ready, books.left)
    if rounds.why_together is not None:
        listeners.note(f"all processes make the same generations, because {rounds.why_together}.")
    calls = [checked.call_for(each.wanted) for each in rounds.own]
    began_s = time.perf_counter()
    loader = LoraLoader(ready.plan, checked.loras, given_files(ready).read) if checked.loras else None
    with ExitStack() as during:
        held = during.enter_context(_opened(ready, listeners, loader))
        if ready.group is not None:
            ready.group.agree("loaded")
        made.load_s = time.perf_counter() - began_s
        if rehearsal is not None:
            made.rehearsed = _rehearse(held, rehearsal, ready, checked, listeners)
        during.enter_context(recorded(ready, held, checked.workload, listeners.trace_out))
        ahead = TextsAhead(held, calls) if len(books.left) > 1 else nullcontext()
        began_s = time.perf_counter()
        with watched(ready.device_kind) as disturbances, ahead as texts:
            for index, part in enumerate(rounds.own):
                if texts is not None:
                    texts.reach(index)
                    _keep_masters_for(texts, ready, held)
                if listeners.on_generation is not None:
                    listeners.on_generation(part.wanted[0], part.place + 1, len(books.left))
                made.records |= _generate(ready, held, calls[index], books, part)
                _log.info("call %d of %d made", part.place + 1, len(books.left))
        made.passed_s = time.perf_counter() - began_s if rounds.apart else None
        made.disturbances = disturbances()
        if texts is not None:
            made.texts = TextsRecord(encoded_ahead=texts.why_not is None, seconds=texts.seconds, why_not=texts.why_not)
            made.text_stages = summed_stages(texts.stages)
    made.changes, made.demotions = [*held.changes], held.demotions
    made.loras = loader.applied if loader is not None else []
    made.changes += _uncounted(ready.plan, made.loras)
    made.changes += dict.fromkeys(
        f"{each.file.path}: {each.unused} of the LoRA's {each.layers} layers fit nothing and were left out"
        for each in made.loras
        if each.unused
    )
    rounds.close(made)
    return made


def _uncounted(plan: PlanDocument, loras: Sequence[AppliedLora]) -> Iterator[str]:
    """What is computed beside weights though the plan counts it nowhere."""
    planned = {(each.sha256, each.component) for each in plan.loras if not each.fused}
    for lora in loras:
        uncounted = [name for name in lora.beside if (lora.file.sha256, name) not in planned]
        if uncounted:
            yield f"{lora.file.path}: computed beside {' and '.join(uncounted)}, which the plan doesn't count"


def _keep_masters_for(texts: TextsAhead, ready: ReadyPlan, held: Held) -> None:
    """Has encoders stay where not every text is encoded yet, if host memory allows it (NothingFits)."""
    turns = held.runtime.host_turns
    if not turns.gives_back or texts.complete or not ready.plan.budget.host_turns:
        return
    why = f"texts can't all be encoded first ({texts.why_not or 'they are too many'})"
    held.changes.append(with_all_masters(ready, why)[1])
    turns.gives_back = False


def _rehearse(
    held: Held, rehearsal: Rehearsal, ready: ReadyPlan, checked: CheckedCall, listeners: Listeners
) -> list[RehearsedRecord]:
    """Tries a stage before anything is generated; what it has to give up stays given up."""
    tell = listeners.on_rehearsal or (lambda stage, record: None)
    tell(rehearsal.text, None)
    record = rehearse_run(held, rehearsal, ready.plan, checked.workload, listeners.note)
    if record is not None:
        tell(rehearsal.text, record)
    return [] if record is None else [record]


@contextmanager
def _opened(ready: ReadyPlan, listeners: Listeners, load: LoadComponent | None) -> Iterator[Held]:
    """The pipeline for the run; afterwards it is used no more, so nothing of it comes back to host memory."""
    held = open_pipeline(ready, listeners.on_component, listeners.on_event, load)
    try:
        yield held
    finally:
        held.abandon()


def _generate(
    ready: ReadyPlan, held: Held, call: GenerationRequest, books: Books, part: Round
) -> dict[PlannedGeneration, GenerationRecord]:
    """Makes this process's call of a round; who writes saves and notes what all made in it."""
    with part.in_step(held):
        generation, resumed = books.kept.generate(held, part.wanted[0], call)
    if not ready.writes:
        part.send(done_of(ready, call, part.wanted, generation) if part.is_own else None)
        return {part.wanted[0]: generation_record(part.wanted[0], generation, [], generation.stages, None)}
    records: dict[PlannedGeneration, GenerationRecord] = {}
    outputs = parts_of(generation, part.wanted, ready.plan.model.pipeline)
    for each, made in zip(part.wanted, outputs, strict=True):
        if each in books.there:
            continue
        own = replace(call, prompt=each.prompt, seed=each.seed)
        saved = save_generation(ready, own, made, each.output)
        # Stages are the call's: where several records share one, the first has them.
        stages, went_on = ((), None) if records else (made.stages, resumed)
        records[each] = generation_record(each, made, saved, stages, went_on)
        books.note(each, records[each])
    books.kept.finished(part.wanted[0])
    for theirs, done in part.received():
        records |= save_done(books, theirs, done)
    return records
