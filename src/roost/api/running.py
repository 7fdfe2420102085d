"""Running: a checked plan loaded, its generations made, saved and recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from roost.api.generations import PlannedGeneration, generations_of
from roost.api.inspection import profile_of
from roost.api.journal import Journal
from roost.api.learning import learn_from_run
from roost.api.opening import OnComponent, open_pipeline
from roost.api.ready import ReadyPlan, workload_of_run
from roost.api.recording import recorded
from roost.api.records import GenerationRecord, RunRecord, TextsRecord, joined_digest, summed_stages
from roost.api.requests import RunRequest
from roost.api.updating import update_plan
from roost.facts import Workload

if TYPE_CHECKING:
    from roost.residency.attach import Held
    from roost.residency.calls import GenerationRequest
    from roost.residency.generate import Generation
    from roost.residency.stages import OnEvent, StageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """Who hears of a run while it goes on: ``on_generation`` of its number, from 1, and of how many.

    ``trace_out`` is a file for the measured timeline.
    """

    on_component: OnComponent | None = None
    on_event: OnEvent | None = None
    on_generation: Callable[[PlannedGeneration, int, int], None] | None = None
    trace_out: Path | None = None


def check_call(ready: ReadyPlan, request: RunRequest) -> GenerationRequest:
    """The pipeline's call for the first generation, found out before anything loads.

    Raises PlanMismatch for a larger workload than planned, UsageError for what the pipeline doesn't take or lacks.
    """
    from roost.pipelines.classes import pipeline_class  # imported here: these bring torch
    from roost.residency.calls import GenerationRequest, accepts, call_arguments
    from roost.residency.media import check_output_path

    profile, wanted = profile_of(ready.inventory), workload_of_run(ready.plan, request)
    if request.output is not None:
        check_output_path(request.output, video=profile.task == "video")
    pipeline = pipeline_class(ready.plan.model.pipeline)
    if request.guidance is None and not accepts(pipeline, profile.guidance_argument):
        wanted = replace(wanted, guidance=None)  # the family's default says nothing to this pipeline
    call = GenerationRequest(
        prompt=request.prompts[0],
        negative_prompt=request.negative_prompt,
        seed=request.seeds[0],
        guidance_argument=profile.guidance_argument,
        **asdict(wanted),
    )
    call_arguments(pipeline, call)
    return call


def run_plan(
    ready: ReadyPlan, request: RunRequest, listeners: Listeners | None = None, plan_file: Path | None = None
) -> RunRecord:
    """Loads once, then generates and saves one after another; what memory did not allow goes back into ``plan_file``.

    Of several generations the texts are encoded first, and those that an earlier run finished are not made again.
    Raises OutOfMemory, and UsageError for an option that the pipeline can't take. What was saved before stays.
    """
    call = check_call(ready, request)
    wanted = generations_of(request)
    journal = _journal(ready, request)
    finished = {each: journal.finished(each) for each in wanted} if journal else {}
    left = [each for each in wanted if finished.get(each) is None]
    if not left:
        return _record(ready, [each for each in finished.values() if each], _Made())
    made = _make(ready, left, call, listeners or Listeners(), journal)
    if plan_file is not None and made.demotions:
        update_plan(plan_file, made.demotions)
    record = _record(ready, [finished.get(each) or made.records[each] for each in wanted], made)
    remembered = learn_from_run(ready.plan, workload_of_run(ready.plan, request), record)
    return replace(record, compared=remembered.document())


@dataclass(slots=True)
class _Made:
    """What was generated, and what beside the generations themselves is to be recorded."""

    records: dict[PlannedGeneration, GenerationRecord] = field(default_factory=dict)
    load_s: float = 0.0
    texts: TextsRecord | None = None
    text_stages: tuple[StageRecord, ...] = ()
    changes: list[str] = field(default_factory=list)
    demotions: dict[str, dict[str, object]] = field(default_factory=dict)


def _make(
    ready: ReadyPlan,
    wanted: list[PlannedGeneration],
    call: GenerationRequest,
    listeners: Listeners,
    journal: Journal | None,
) -> _Made:
    """Loads the pipeline and makes what is ``wanted``, each saved and noted before the next one begins."""
    from roost.residency.texts_ahead import TextsAhead  # imported here: it brings torch

    made = _Made()
    calls = [replace(call, prompt=each.prompt, seed=each.seed) for each in wanted]
    began_s = time.perf_counter()
    with _opened(ready, listeners) as held, recorded(ready, held, _workload_of(call), listeners.trace_out):
        made.load_s = time.perf_counter() - began_s
        with TextsAhead(held, calls) if len(calls) > 1 else nullcontext() as texts:
            for index, each in enumerate(wanted):
                if texts is not None:
                    texts.reach(index)
                if listeners.on_generation is not None:
                    listeners.on_generation(each, index + 1, len(wanted))
                made.records[each] = _generate(ready, held, each, calls[index])
                if journal is not None:
                    journal.note(each, made.records[each])
        if texts is not None:
            made.texts = TextsRecord(encoded_ahead=texts.why_not is None, seconds=texts.seconds, why_not=texts.why_not)
            made.text_stages = summed_stages(texts.stages)
    made.changes, made.demotions = held.changes, held.demotions
    return made


def _workload_of(call: GenerationRequest) -> Workload:
    """The workload of one generation, its sizes as they were decided for the call."""
    return Workload(
        width=call.width or 0,
        height=call.height or 0,
        frames=call.frames,
        steps=call.steps or 0,
        batch=call.batch,
        guidance=call.guidance,
    )


def _journal(ready: ReadyPlan, request: RunRequest) -> Journal | None:
    """The journal of a run of several generations that are saved."""
    if request.output is None or not (request.listed or len(request.seeds) > 1):
        return None
    loaded = {
        name: (each.class_name, each.variant, each.load_dtype, each.tiling, each.slicing)
        for name, each in sorted(ready.plan.components.items())
    }
    settings = {
        "model": ready.inventory.fingerprint,
        "components": loaded,
        "workload": asdict(workload_of_run(ready.plan, request)),
        "negative_prompt": request.negative_prompt,
        "device_kind": ready.device_kind,
    }
    return Journal(request.output, settings)


@contextmanager
def _opened(ready: ReadyPlan, listeners: Listeners) -> Iterator[Held]:
    """The pipeline for the run; afterwards it is used no more, so nothing of it comes back to host memory."""
    held = open_pipeline(ready, listeners.on_component, listeners.on_event)
    try:
        yield held
    finally:
        held.abandon()


def _generate(ready: ReadyPlan, held: Held, wanted: PlannedGeneration, call: GenerationRequest) -> GenerationRecord:
    from roost.residency.generate import generate  # imported here: it brings torch

    generation = generate(held, call)
    return GenerationRecord(
        prompt=wanted.prompt,
        seed=wanted.seed,
        output=_save(ready, generation, wanted.output),
        digest=generation.digest,
        latent_digest=generation.latent_digest,
        seconds=generation.seconds,
        stages=generation.stages,
        peak_bytes=generation.peak_bytes,
        skipped=False,
    )


def _save(ready: ReadyPlan, generation: Generation, path: Path | None) -> list[str]:
    from roost.residency.media import save_outputs  # imported here: it brings torch

    if path is None:
        return []
    saved = save_outputs(generation.output, path, profile_of(ready.inventory).frames_per_s)
    return [str(each) for each in saved]


def _record(ready: ReadyPlan, generations: list[GenerationRecord], made: _Made) -> RunRecord:
    digest = joined_digest([each.digest for each in generations])
    assert digest is not None, "a run makes one generation at least, and each has a digest"
    stages = [*made.text_stages, *(stage for each in generations for stage in each.stages)]
    text_s = made.texts.seconds if made.texts is not None else 0.0
    return RunRecord(
        output=[path for each in generations for path in each.output],
        digest=digest,
        latent_digest=joined_digest([each.latent_digest for each in generations]),
        device_kind=ready.device_kind,
        load_s=made.load_s,
        seconds=text_s + sum(each.seconds or 0.0 for each in generations),
        stages=tuple(stages) if len(generations) == 1 else summed_stages(stages),
        peak_bytes=max((each.peak_bytes for each in stages), default=0),
        changes=[*ready.changes, *made.changes],
        generations=tuple(generations),
        texts=made.texts,
    )
