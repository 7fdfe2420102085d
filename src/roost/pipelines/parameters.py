"""Under which names the calls of diffusers' pipelines take what every call has."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

FRAMES = ("num_frames", "video_length", "frames")
BATCH = ("num_images_per_prompt", "num_videos_per_prompt", "num_waveforms_per_prompt")


def call_parameters(pipeline: type) -> Mapping[str, inspect.Parameter]:
    """The parameters of the pipeline class's call."""
    return inspect.signature(pipeline.__call__).parameters


def name_among(names: Sequence[str], parameters: Mapping[str, inspect.Parameter]) -> str | None:
    """The first of ``names`` that the call has."""
    return next((name for name in names if name in parameters), None)


def needed_parameters(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """Those without a default, which a caller must give by name."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        name
        for name, each in parameters.items()
        if each.default is each.empty and each.kind in by_name and name != "self"
    ]
