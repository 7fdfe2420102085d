"""What a pipeline is asked to generate, and that by the names in its call's signature."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from roost.pipelines.signatures import FRAMES, name_among


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What to generate. None leaves a value to the pipeline; ``more`` are further arguments of its call.

    ``group`` has prompt and seed of every output of a call that several prompts share; ``prompt`` and ``seed`` are
    then those of the first.
    """

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
    group: tuple[tuple[str, int], ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Its prompts, one for each output of a group."""
        return tuple(prompt for prompt, _ in self.group) or (self.prompt,)


def workload_arguments(request: GenerationRequest, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The request's values that the call has ``parameters`` for; without a size, steps or guidance it has its own.

    The dry run and the run call a pipeline with these, so that one foresees what the other does. Each adds batches,
    negative prompts and further arguments, which it may refuse or make up.
    """
    values = {
        "prompt": list(request.texts) if request.group else request.prompt,
        "width": request.width,
        "height": request.height,
        name_among(FRAMES, parameters) or FRAMES[0]: request.frames,
        "num_inference_steps": request.steps,
        request.guidance_argument: request.guidance,
        "strength": request.strength,
        "generator": [_generator(seed) for _, seed in request.group] or _generator(request.seed),
        "output_type": request.output_type,
    }
    return {name: value for name, value in values.items() if name in parameters and value is not None}


def _generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)
