"""A run's call of its pipeline, found out and checked before anything loads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from roost.api.inspection import profile_of
from roost.api.loras import read_loras
from roost.api.pictures import PictureRecord, read_pictures
from roost.api.ready import ReadyPlan, workload_of_run
from roost.api.requests import RunRequest
from roost.facts import Workload
from roost.residency.lora_files import LoraFile

if TYPE_CHECKING:
    from roost.residency.calls import GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedCall:
    """``call`` is the first generation's; the others differ in prompt and seed."""

    call: GenerationRequest
    workload: Workload
    pictures: tuple[PictureRecord, ...]
    loras: tuple[LoraFile, ...]


def check_call(ready: ReadyPlan, request: RunRequest) -> CheckedCall:
    """The pipeline's call, with the pictures and LoRAs that it is given.

    Raises PlanMismatch for a larger workload than planned, UsageError for what the pipeline doesn't take or lacks,
    InvalidFile and UsageError for a picture or LoRA that is none.
    """
    from roost.residency.quiet import quiet_libraries  # imported here: it brings torch

    with quiet_libraries():  # importing a pipeline's class may warn of packages that nothing here needs
        return _checked(ready, request)


def _checked(ready: ReadyPlan, request: RunRequest) -> CheckedCall:
    from roost.pipelines.classes import pipeline_class  # imported here: these bring torch
    from roost.residency.calls import GenerationRequest, accepts, call_arguments
    from roost.residency.fused_loras import check_loras
    from roost.residency.media import check_output_path

    profile, wanted = profile_of(ready.inventory), workload_of_run(ready.plan, request)
    latent = request.output_type == "latent"
    if request.output is not None:
        check_output_path(request.output, video=profile.task == "video", latent=latent)
    pipeline = pipeline_class(ready.plan.model.pipeline)
    loras = read_loras(request.loras, ready.plan)
    check_loras(pipeline, ready.plan, loras)
    pictures, records = read_pictures(request.images, pipeline, wanted)
    if request.guidance is None and not accepts(pipeline, profile.guidance_argument):
        wanted = replace(wanted, guidance=None)  # the family's default says nothing to this pipeline
    call = GenerationRequest(
        prompt=request.prompts[0],
        negative_prompt=request.negative_prompt,
        seed=request.seeds[0],
        guidance_argument=profile.guidance_argument,
        output_type="latent" if latent else "pt",
        more=pictures,
        **asdict(wanted),
    )
    if pictures and not accepts(pipeline, "width"):
        call = replace(call, width=None, height=None)  # the picture's size is the output's
    call_arguments(pipeline, call)
    return CheckedCall(call=call, workload=workload_of_run(ready.plan, request), pictures=records, loras=loras)
