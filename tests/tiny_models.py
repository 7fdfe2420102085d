"""Tiny real pipeline directories with seeded random weights, by family name, and how to call each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

import tiny_image_pipelines
import tiny_video_pipelines
from random_weights import fill_with_random_weights

_IMAGE = {"height": 64, "width": 64}
_VIDEO = {"height": 64, "width": 64, "num_frames": 9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How a family's tiny pipeline is made and the arguments of a small call beyond prompt and steps."""

    make: Callable[[], DiffusionPipeline]
    size: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {
    "wan2.2": Family(make=tiny_video_pipelines.wan_2_2, size=_VIDEO),
    "wan2.1": Family(make=tiny_video_pipelines.wan_2_1, size=_VIDEO),
    "flux": Family(make=tiny_image_pipelines.flux, size=_IMAGE, options={"max_sequence_length": 64}),
    "sdxl": Family(make=tiny_image_pipelines.sdxl, size=_IMAGE),
    "sd3": Family(make=tiny_image_pipelines.sd3, size=_IMAGE, options={"max_sequence_length": 64}),
    "qwen-image": Family(
        make=tiny_image_pipelines.qwen_image,
        size=_IMAGE,
        options={"negative_prompt": " ", "true_cfg_scale": 4.0},
    ),
    "ltx": Family(make=tiny_video_pipelines.ltx, size=_VIDEO),
    "hunyuanvideo": Family(
        make=tiny_video_pipelines.hunyuan_video,
        size=_VIDEO,
        # The library's own template alone is longer than its token limit when letters are tokens.
        options={"prompt_template": {"template": "{}", "crop_start": 0}},
    ),
    "cogvideox": Family(make=tiny_video_pipelines.cogvideox, size=_VIDEO),
    "z-image": Family(make=tiny_image_pipelines.z_image, size=_IMAGE),
}


def build(name: str, directory: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Save family `name` into `directory` and return it; the same name always has the same weights."""
    pipeline = FAMILIES[name].make()
    fill_with_random_weights(pipeline.components)
    pipeline.to(dtype).save_pretrained(directory)
    return directory


def default_call(name: str) -> dict[str, Any]:
    """Arguments of a two-step call of family `name`; generator and output type are the caller's."""
    family = FAMILIES[name]
    return {"prompt": "a fox", "num_inference_steps": 2, **family.size, **family.options}
