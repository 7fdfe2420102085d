"""Saving one generation, as what its run was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from roost.api.inspection import makes_of, profile_of
from roost.api.ready import ReadyPlan
from roost.errors import RoostError

if TYPE_CHECKING:
    from roost.residency.calls import GenerationRequest
    from roost.residency.generate import Generation

_OF_PICTURES = 4  # dimensions at least


def save_generation(ready: ReadyPlan, call: GenerationRequest, generation: Generation, path: Path | None) -> list[str]:
    """The files written for ``path``, each whole: pictures, videos or latents; none for None."""
    from roost.residency.media import save_latents, save_outputs  # imported here: it brings torch

    if path is None:
        return []
    if call.output_type == "latent":
        facts = {
            "pipeline": ready.plan.model.pipeline,
            "prompt": call.prompt,
            "seed": str(call.seed),
            "width": str(call.width),
            "height": str(call.height),
            "frames": str(call.frames),
        }
        saved = save_latents(generation.output, path, {name: each for name, each in facts.items() if each != "None"})
    else:
        if generation.output.ndim < _OF_PICTURES and makes_of(ready.inventory) != "audio":
            raise RoostError(
                f"{ready.plan.model.pipeline} makes numbers of shape {tuple(generation.output.shape)}, which no picture"
                " holds; leave -o out, or call it from Python."
            )
        frames_per_s = profile_of(ready.inventory).frames_per_s
        saved = save_outputs(generation.output, path, frames_per_s, generation.samples_per_s)
    return [str(each) for each in saved]
