"""Other libraries' ways of moving weights, by their names: where weights are, only one of them and a plan can say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from accelerate.hooks import ModelHook

from roost.errors import UsageError
from roost.pipelines.internals.of_accelerate import MMGP_MANAGER, hooks_of
from roost.pipelines.internals.of_diffusers import has_hook

Attributes = dict[str, Any]  # a module's own


class ExecutionDevice(ModelHook):  # type: ignore[misc]  # accelerate has no types
    """Only says where a component runs: pipelines send their inputs there, wherever the weights are parked."""

    def __init__(self, device: torch.device) -> None:
        self.execution_device = device


# diffusers keeps its hooks in a registry on each module, by these names.
_GROUP_OFFLOADING = ("group_offloading", "lazy_prefetch_group_offloading", "layer_execution_tracker")
_CASTING = "layerwise_casting"
_ACCELERATE_HOOKS = {
    "ExecutionDevice": "another Roost plan",
    "CpuOffload": "diffusers' model CPU offload",
    "AlignDevicesHook": "accelerate's device map or sequential CPU offload",
    "CustomOffloadHook": "diffusers' components manager",
}


def find_offloader(parts: Iterable[Attributes], *, held: bool = False) -> str | None:
    """What moves the weights of modules with these attributes, other than the plan that has them ``held``; or None."""
    for part in parts:
        names = [type(hook).__name__ for hook in hooks_of(part)]
        foreign = [name for name in names if not (held and name == ExecutionDevice.__name__)]
        if foreign:
            return _ACCELERATE_HOOKS.get(foreign[0], f"accelerate's {foreign[0]}")
        if has_hook(part, _GROUP_OFFLOADING):
            return "diffusers' group offloading"
        if MMGP_MANAGER in part:
            return "mmgp's offload"
        if part.get("hf_device_map"):
            return "a device map"
    return None


def casts_weights(parts: Iterable[Attributes]) -> bool:
    """Whether diffusers' layerwise casting is on in any of these modules."""
    return any(has_hook(part, (_CASTING,)) for part in parts)


def check_free(pipeline: object, modules: Mapping[str, torch.nn.Module]) -> None:
    """UsageError when something else already moves the pipeline's weights."""
    for name, module in modules.items():
        found = find_offloader(vars(part) for part in module.modules())
        if found is not None:
            raise UsageError(f"the weights of {name} are already moved by {found}; {_REMEDY}.")
    if getattr(pipeline, "hf_device_map", None):
        raise UsageError(f"the weights of this pipeline are already placed by a device map; {_REMEDY}.")


_REMEDY = "undo that first (pipeline.remove_all_hooks(), reset_device_map(), or close the plan)"
