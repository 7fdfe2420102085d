"""What to call a pipeline with: a request, and the arguments by the names in the call's signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from roost.errors import UsageError
from roost.pipelines.signatures import BATCH, FRAMES, call_parameters, name_among, needed_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What to generate. None leaves a value to the pipeline; ``more`` are further arguments of its call."""

    prompt: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    steps: int | None = None
    guidance: float | None = None
    guidance_argument: str = "guidance_scale"
    strength: float | None = None
    batch: int = 1
    seed: int = 0
    output_type: str = "pt"
    more: Mapping[str, object] = field(default_factory=dict)


def accepts(pipeline: type, argument: str) -> bool:
    """Whether the pipeline class's call has such a parameter."""
    return argument in call_parameters(pipeline)


def call_arguments(pipeline: type, request: GenerationRequest) -> dict[str, Any]:
    """The arguments of the pipeline class's call.

    What it has no parameter for is left out of the workload: it has its own size, steps or guidance then. Raises
    UsageError for anything else that it has no parameter for, and for a parameter that it needs and nobody gives.
    """
    parameters = call_parameters(pipeline)
    workload = {
        "prompt": request.prompt,
        "width": request.width,
        "height": request.height,
        name_among(FRAMES, parameters) or FRAMES[0]: request.frames,
        "num_inference_steps": request.steps,
        request.guidance_argument: request.guidance,
        "strength": request.strength,
        "generator": torch.Generator("cpu").manual_seed(request.seed),
        "output_type": request.output_type,
    }
    asked = {"negative_prompt": request.negative_prompt, **request.more}
    if request.batch > 1:
        asked[name_among(BATCH, parameters) or BATCH[0]] = request.batch
    taken = {name: value for name, value in workload.items() if name in parameters}
    arguments = {name: value for name, value in {**taken, **asked}.items() if value is not None}
    unknown = [name for name in arguments if name not in parameters]
    if unknown:
        raise UsageError(
            f"{pipeline.__name__} has no parameter {', '.join(map(repr, unknown))}; leave that option out."
        )
    missing = [name for name in needed_parameters(parameters) if name not in arguments]
    if missing:
        raise UsageError(
            f"{pipeline.__name__} needs {', '.join(map(repr, missing))}, which no option gives; call the pipeline of"
            " roost.load_pipeline(plan) from Python."
        )
    return arguments
