"""The arguments of a pipeline's call for a workload, by the names in its signature; pictures are made up."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image

from roost.errors import DryRunError
from roost.facts import Workload
from roost.probes.dry_run.options import DryRunOptions

_BATCH_PARAMETERS = ("num_images_per_prompt", "num_videos_per_prompt")
# Where guidance needs a negative prompt to run at all; elsewhere an absent one stands for an empty one.
_GUIDANCE_BY_NEGATIVE_PROMPT = "true_cfg_scale"


def call_arguments(pipeline: Any, workload: Workload, options: DryRunOptions) -> dict[str, Any]:
    """What to call ``pipeline`` with. Raises DryRunError when it needs something that can't be made up."""
    parameters = inspect.signature(type(pipeline).__call__).parameters
    wanted: dict[str, Any] = {
        "prompt": options.prompt,
        "negative_prompt": _negative_prompt(workload, options),
        "width": workload.width,
        "height": workload.height,
        "num_frames": workload.frames,
        "num_inference_steps": workload.steps,
        options.guidance_argument: workload.guidance,
        "generator": torch.Generator("cpu").manual_seed(0),
        "output_type": "pt",
    }
    batch = next((name for name in _BATCH_PARAMETERS if name in parameters), None)
    if batch is not None:
        wanted[batch] = workload.batch
    elif workload.batch > 1:
        wanted["prompt"] = [options.prompt] * workload.batch
    for name, make in _PICTURES.items():
        if name in parameters and not (name == "video" and "image" in parameters):
            wanted[name] = make(workload)
    arguments = {name: value for name, value in wanted.items() if value is not None and name in parameters}
    arguments |= options.more
    _check_complete(type(pipeline).__name__, parameters, arguments)
    return arguments


def _negative_prompt(workload: Workload, options: DryRunOptions) -> str | None:
    needs_one = options.guidance_argument == _GUIDANCE_BY_NEGATIVE_PROMPT and (workload.guidance or 0) > 1
    return " " if options.negative_prompt is None and needs_one else options.negative_prompt


def _check_complete(pipeline: str, parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]) -> None:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in variadic
        and name != "self"
        and name not in arguments
    ]
    if missing:
        raise DryRunError(
            f"{pipeline} can't be dry-run: its call needs {', '.join(map(repr, missing))}, which nothing can be made up"
            " for; plan with --policy rules."
        )


def _picture(workload: Workload) -> Any:
    return Image.new("RGB", (workload.width, workload.height), (127, 127, 127))


def _mask(workload: Workload) -> Any:
    return Image.new("L", (workload.width, workload.height), 255)


def _video(workload: Workload) -> Any:
    return [_picture(workload)] * (workload.frames or 1)


_PICTURES: dict[str, Callable[[Workload], Any]] = {
    "image": _picture,
    "control_image": _picture,
    "mask_image": _mask,
    "video": _video,
}
