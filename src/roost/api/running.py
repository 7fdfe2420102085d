"""Running: a checked plan loaded, its generations made, saved and recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from roost.api.generations import PlannedGeneration, generations_of
from roost.api.inspection import profile_of
from roost.api.learning import learn_from_run
from roost.api.opening import OnComponent, open_pipeline
from roost.api.ready import ReadyPlan, workload_of_run
from roost.api.records import GenerationRecord, RunRecord, joined_digest, summed_stages
from roost.api.requests import RunRequest
from roost.api.updating import update_plan

if TYPE_CHECKING:
    from roost.residency.attach import Held
    from roost.residency.calls import GenerationRequest
    from roost.residency.generate import Generation
    from roost.residency.stages import OnEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """Who hears of a run while it goes on: ``on_generation`` of its number, from 1, and of how many."""

    on_component: OnComponent | None = None
    on_event: OnEvent | None = None
    on_generation: Callable[[PlannedGeneration, int, int], None] | None = None


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

    Raises OutOfMemory, and UsageError for an option that the pipeline can't take. What was saved before stays.
    """
    call = check_call(ready, request)
    listeners = listeners or Listeners()
    wanted = generations_of(request)
    began_s = time.perf_counter()
    with _opened(ready, listeners) as held:
        load_s = time.perf_counter() - began_s
        records = []
        for number, each in enumerate(wanted, start=1):
            if listeners.on_generation is not None:
                listeners.on_generation(each, number, len(wanted))
            records.append(_generate(ready, held, each, call))
    if plan_file is not None and held.demotions:
        update_plan(plan_file, held.demotions)
    record = _record(ready, records, load_s, [*ready.changes, *held.changes])
    remembered = learn_from_run(ready.plan, workload_of_run(ready.plan, request), record)
    return replace(record, compared=remembered.document())


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

    generation = generate(held, replace(call, prompt=wanted.prompt, seed=wanted.seed))
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


def _record(ready: ReadyPlan, generations: list[GenerationRecord], load_s: float, changes: list[str]) -> RunRecord:
    digest = joined_digest([each.digest for each in generations])
    assert digest is not None, "a run makes one generation at least, and each has a digest"
    stages = [stage for each in generations for stage in each.stages]
    return RunRecord(
        output=[path for each in generations for path in each.output],
        digest=digest,
        latent_digest=joined_digest([each.latent_digest for each in generations]),
        device_kind=ready.device_kind,
        load_s=load_s,
        seconds=sum(each.seconds or 0.0 for each in generations),
        stages=tuple(stages) if len(generations) == 1 else summed_stages(stages),
        peak_bytes=max(each.peak_bytes or 0 for each in generations),
        changes=changes,
        generations=tuple(generations),
    )
