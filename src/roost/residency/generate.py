"""One generation with a held pipeline, measured and hashed."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from roost.errors import RoostError, UsageError
from roost.residency.attach import Held
from roost.residency.digests import tensor_digest
from roost.residency.memory_errors import out_of_memory_in
from roost.residency.progress import report_steps
from roost.residency.quiet import quiet_libraries
from roost.residency.stages import StageRecord

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
    more: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """``output`` is (batch, channel, height, width), or (batch, frame, channel, height, width) for video, 0 to 1.

    ``latent_digest`` is of what the VAE decoded; None when nothing was decoded.
    """

    output: torch.Tensor
    digest: str
    latent_digest: str | None
    seconds: float
    stages: tuple[StageRecord, ...]
    peak_bytes: int


def generate(held: Held, request: GenerationRequest) -> Generation:
    """Calls the held pipeline once.

    Raises UsageError for a value that the pipeline has no parameter for or refuses, OutOfMemory when the device's
    budget ends.
    """
    arguments = call_arguments(type(held.pipeline), request)
    began_s = time.perf_counter()
    with _latent_digests(held) as latents, report_steps(held.pipeline, held.recorder), quiet_libraries():
        try:
            held.runtime.end_call()
            with out_of_memory_in("the pipeline's call", held.device):
                output = _output_tensor(held.pipeline(**arguments))
        except ValueError as error:  # pipelines check their arguments first
            reason = " ".join(str(error).split())[:300].rstrip(".")
            raise UsageError(
                f"{type(held.pipeline).__name__} refuses the call: {reason}; change that option."
            ) from error
        finally:
            held.runtime.end_call()
    seconds = time.perf_counter() - began_s
    return Generation(
        output=output,
        digest=tensor_digest(output),
        latent_digest=_joined(latents),
        seconds=seconds,
        stages=held.stages,
        peak_bytes=max((stage.peak_bytes for stage in held.stages), default=0),
    )


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
        "output_type": "pt",
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


def _output_tensor(result: Any) -> torch.Tensor:
    """The pictures or videos of a pipeline's result: its first field, one tensor or a list of equal ones."""
    first = result[0]
    if isinstance(first, list | tuple) and first and all(isinstance(each, torch.Tensor) for each in first):
        first = torch.stack(list(first))
    if not isinstance(first, torch.Tensor):
        raise RoostError(f"the pipeline gave a {type(first).__name__} instead of a tensor; Roost can't run it yet.")
    return first.detach().to("cpu")


@contextmanager
def _latent_digests(held: Held) -> Iterator[list[str]]:
    digests: list[str] = []

    def observe(component: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if method == "decode" and held.plan.components[component].kind == "vae":
            latents = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(latents, torch.Tensor):
                digests.append(tensor_digest(latents))

    held.runtime.observer = observe
    try:
        yield digests
    finally:
        held.runtime.observer = None


def _joined(digests: list[str]) -> str | None:
    """One digest for all that was decoded."""
    if len(digests) < 2:
        return digests[0] if digests else None
    return hashlib.sha256("|".join(digests).encode()).hexdigest()
