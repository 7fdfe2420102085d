"""A run's call of its pipeline, found out and checked before anything loads."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from roost.api.models.inspect import makes_of, profile_of, takes_prompt
from roost.api.requests.given_files import check_fuse, planned_loras, read_loras
from roost.api.requests.inputs import InputQuestion, InputRecord, read_inputs
from roost.api.requests.request import NO_PROMPT, PlannedCall, RunRequest, calls_of
from roost.api.runs.ready import ReadyPlan, workload_of_run
from roost.errors import UsageError
from roost.facts.loras import LoraFile
from roost.facts.model import Inventory
from roost.facts.request import Workload
from roost.pipelines.signatures import FRAMES, call_parameters

if TYPE_CHECKING:
    from roost.pipelines.calls import GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedCall:
    """``call`` is the first generation's; the others differ in prompt and seed. ``workload`` is what will run."""

    call: GenerationRequest
    workload: Workload
    pictures: tuple[InputRecord, ...]
    loras: tuple[LoraFile, ...]
    beyond: tuple[str, ...]  # of the inputs, what the plan does not count

    def call_for(self, wanted: PlannedCall) -> GenerationRequest:
        """The call that makes these."""
        first = wanted[0]
        return replace(self.call, prompt=first.prompt, seed=first.seed, group=first.group)


def check_call(ready: ReadyPlan, request: RunRequest) -> CheckedCall:
    """The pipeline's call, with the pictures and LoRAs that it is given.

    Raises PlanMismatch for a larger workload than planned, UsageError for what the pipeline doesn't take or lacks,
    InvalidFile and UsageError for a picture or LoRA that is none.
    """
    from roost.pipelines.quiet import quiet_libraries  # imported here: it brings torch

    with quiet_libraries():  # importing a pipeline's class may warn of packages that nothing here needs
        return _checked(ready, request)


def _checked(ready: ReadyPlan, request: RunRequest) -> CheckedCall:
    from roost.pipelines.adapters import check_loras
    from roost.pipelines.calls import GenerationRequest
    from roost.pipelines.classes import pipeline_class  # imported here: these bring torch
    from roost.residency.media.outputs import check_output_path
    from roost.residency.run.calls import call_arguments

    profile, wanted = profile_of(ready.inventory), workload_of_run(ready.plan, request)
    check_prompt(ready.inventory, request)
    latent = request.output_type == "latent"
    if request.output is not None:
        check_output_path(request.output, makes=makes_of(ready.inventory), latent=latent)
    pipeline = pipeline_class(ready.plan.model.pipeline)
    loras = (*planned_loras(ready.plan, request.fuse), *read_loras(request.loras, ready.plan.components, request.fuse))
    check_fuse(loras, request.fuse)
    check_loras(pipeline, ready.plan.components, loras)
    _refuse_untaken(call_parameters(pipeline), pipeline.__name__, request, profile.guidance_argument)
    inputs = read_inputs(
        request.images,
        InputQuestion(
            found=pipeline,
            workload=wanted,
            frames_typed=request.frames is not None,
            frame_chunk=profile.frame_chunk,
        ),
    )
    wanted = inputs.workload
    call = GenerationRequest(
        prompt=(request.prompts or NO_PROMPT)[0],
        negative_prompt=request.negative_prompt,
        seed=request.seeds[0],
        guidance_argument=profile.guidance_argument,
        output_type="latent" if latent else "pt",
        more=inputs.arguments,
        **{**asdict(wanted), **({} if request.group is None else {"batch": 1})},
        group=calls_of(request)[0][0].group,
    )
    if call.strength is None:
        call = replace(call, strength=request.strength)
    call_arguments(pipeline, call)
    return CheckedCall(call=call, workload=wanted, pictures=inputs.records, loras=loras, beyond=inputs.beyond)


def check_prompt(inventory: Inventory, request: RunRequest) -> None:
    """Raises UsageError for a run without a prompt, unless its pipeline takes none; then for one with a prompt."""
    if takes_prompt(inventory):
        if not request.prompts:
            raise UsageError("give either --prompt TEXT or --prompts FILE, a file with one prompt a line.")
    elif request.prompts or request.negative_prompt is not None:
        raise UsageError(f"{inventory.pipeline} takes no prompt; leave --prompt out.")


def _refuse_untaken(parameters: Container[str], pipeline: str, request: RunRequest, guidance: str) -> None:
    """Raises UsageError for a typed value that would change nothing."""
    frames = next((name for name in FRAMES if name in parameters), FRAMES[0])
    typed = {
        "--size": ("width", request.size is not None and not request.images),
        "--frames": (frames, request.frames is not None and not request.images),
        "--steps": ("num_inference_steps", request.steps is not None),
        "--guidance": (guidance, request.guidance is not None),
        "--strength": ("strength", request.strength is not None),
    }
    for option, (name, given) in typed.items():
        if given and name not in parameters:
            raise UsageError(f"{option}: {pipeline} has no parameter {name!r}; leave {option} out.")
