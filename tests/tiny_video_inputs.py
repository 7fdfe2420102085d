"""Directories of tiny pipelines that take a video, and made-up clips for them."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline, WanVACEPipeline, WanVACETransformer3DModel

import tiny_video_pipelines
from random_weights import fill_with_random_weights
from tiny_picture_pipelines import build_as

_LATENTS = 16


def build_ltx_condition(directory: Path) -> Path:
    """LTX with a video to begin with, whose scheduler shifts by no resolution."""
    scheduler = build_as("ltx", "LTXConditionPipeline", directory) / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps({**json.loads(scheduler.read_text()), "use_dynamic_shifting": False}))
    return directory


def wan_vace_parts() -> dict[str, Any]:
    """Wan VACE: a transformer that also sees a video and its mask."""
    parts = tiny_video_pipelines.wan_2_1().components
    config = dict(parts["transformer"].config) | {"vace_layers": [0, 2], "vace_in_channels": 6 * _LATENTS}
    parts = {name: parts[name] for name in ("tokenizer", "text_encoder", "vae", "scheduler")}
    parts["transformer"] = WanVACETransformer3DModel.from_config(config)
    fill_with_random_weights(parts)
    return parts


def build_wan_vace(directory: Path) -> Path:
    """Its directory."""
    pipeline: DiffusionPipeline = WanVACEPipeline(**wan_vace_parts())
    pipeline.save_pretrained(directory)
    return directory


_OF_FAMILY = {
    "WanVideoToVideoPipeline": "wan2.1",
    "CogVideoXVideoToVideoPipeline": "cogvideox",
}
BUILDERS: dict[str, Callable[[Path], Path]] = {
    **{name: functools.partial(build_as, family, name) for name, family in _OF_FAMILY.items()},
    "LTXConditionPipeline": build_ltx_condition,
    "WanVACEPipeline": build_wan_vace,
}
