"""What to call a pipeline with: a request, and the arguments by the names in the call's signature."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from roost.errors import UsageError

_BATCH_PARAMETERS = ("num_images_per_prompt", "num_videos_per_prompt")


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
    batch: int = 1
    seed: int = 0
    output_type: str = "pt"
    more: Mapping[str, object] = field(default_factory=dict)


def accepts(pipeline: type, argument: str) -> bool:
    """Whether the pipeline class's call has such a parameter."""
    return argument in inspect.signature(pipeline.__call__).parameters


def call_arguments(pipeline: type, request: GenerationRequest) -> dict[str, Any]:
    """The arguments of the pipeline class's call.

    Raises UsageError for a value that it has no parameter for, and for a parameter that it needs and nobody gives.
    """
    parameters = inspect.signature(pipeline.__call__).parameters
    wanted = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "width": request.width,
        "height": request.height,
        "num_frames": request.frames,
        "num_inference_steps": request.steps,
        request.guidance_argument: request.guidance,
        "generator": torch.Generator("cpu").manual_seed(request.seed),
        "output_type": request.output_type,
        **request.more,
    }
    if request.batch > 1:
        wanted[next((name for name in _BATCH_PARAMETERS if name in parameters), _BATCH_PARAMETERS[0])] = request.batch
    arguments = {name: value for name, value in wanted.items() if value is not None}
    unknown = [name for name in arguments if name not in parameters]
    if unknown:
        raise UsageError(
            f"{pipeline.__name__} has no parameter {', '.join(map(repr, unknown))}; leave that option out."
        )
    needed = [name for name, each in parameters.items() if each.default is each.empty and _by_name(each)]
    missing = [name for name in needed if name not in ("self", *arguments)]
    if missing:
        raise UsageError(
            f"{pipeline.__name__} needs {', '.join(map(repr, missing))}, which no option gives; call the pipeline of"
            " roost.load_pipeline(plan) from Python."
        )
    return arguments


def _by_name(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
