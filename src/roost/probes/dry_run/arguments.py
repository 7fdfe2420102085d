"""The arguments of a pipeline's call for a workload, by the names in its signature; pictures and videos are made up."""

from __future__ import annotations

from typing import Any

import torch

from roost.errors import DryRunError
from roost.facts import Workload
from roost.pipelines.made_up import made_up_inputs
from roost.pipelines.parameters import BATCH, FRAMES, call_parameters, name_among, needed_parameters
from roost.probes.dry_run.options import DryRunOptions

# Where guidance needs a negative prompt to run at all; elsewhere an absent one stands for an empty one.
_GUIDANCE_BY_NEGATIVE_PROMPT = "true_cfg_scale"


def call_arguments(pipeline: Any, workload: Workload, options: DryRunOptions) -> dict[str, Any]:
    """What to call ``pipeline`` with. Raises DryRunError when it needs something that can't be made up."""
    parameters = call_parameters(type(pipeline))
    wanted: dict[str, Any] = {
        "prompt": options.prompt,
        "negative_prompt": _negative_prompt(workload, options),
        "width": workload.width,
        "height": workload.height,
        name_among(FRAMES, parameters) or FRAMES[0]: workload.frames,
        "num_inference_steps": workload.steps,
        options.guidance_argument: workload.guidance,
        "strength": workload.strength,
        "generator": torch.Generator("cpu").manual_seed(0),
        "output_type": "pt",
    }
    batch = name_among(BATCH, parameters)
    if batch is not None:
        wanted[batch] = workload.batch
    elif workload.batch > 1:
        wanted["prompt"] = [options.prompt] * workload.batch
    wanted |= made_up_inputs(type(pipeline), workload.width, workload.height, workload.frames)
    wanted["class_labels"] = [0] * workload.batch
    arguments = {name: value for name, value in wanted.items() if value is not None and name in parameters}
    arguments |= options.more
    missing = [name for name in needed_parameters(parameters) if name not in arguments]
    if missing:
        raise DryRunError(
            f"{type(pipeline).__name__} can't be dry-run: its call needs {', '.join(map(repr, missing))}, which nothing"
            " can be made up for; plan with --policy rules."
        )
    return arguments


def _negative_prompt(workload: Workload, options: DryRunOptions) -> str | None:
    needs_one = options.guidance_argument == _GUIDANCE_BY_NEGATIVE_PROMPT and (workload.guidance or 0) > 1
    return " " if options.negative_prompt is None and needs_one else options.negative_prompt
