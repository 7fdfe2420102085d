"""Tiny live pipelines for the residency tests: what each generates, weighs and carries, and under which strategies."""

import copy
import functools
from typing import Any

import torch

from plans import LAYERWISE
from random_weights import fill_with_random_weights
from roost.pipelines.calls import GenerationRequest
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import Held, hold
from roost.residency.run.generate import tensor_digest
from roost.residency.weights.host_masters import aligned_bytes
from tiny_models import FAMILIES, default_call

SIX_FAMILIES = ("wan2.2", "flux", "sdxl", "sd3", "qwen-image", "ltx")

STRATEGIES: dict[str, Any] = {
    "resident": "resident",
    "component-offload": "component-offload",
    "snapshot-offload": "snapshot-offload",
    "layerwise-offload": LAYERWISE,
    "layerwise-offload, half resident": {**LAYERWISE, "resident_blocks": 0.5},
    "layerwise-offload, leading": {**LAYERWISE, "resident_blocks": 0.5, "resident_policy": "leading"},
    "layerwise-offload, leaf level": {**LAYERWISE, "leaf_level": True},
    "layerwise-offload, half of the leaves resident": {**LAYERWISE, "leaf_level": True, "resident_blocks": 0.5},
    "layerwise-offload, held": {**LAYERWISE, "hold": True},
    "snapshot-offload, lingering": {"strategy": "snapshot-offload", "linger": True},
}


@functools.cache
def live_pipeline(name: str) -> Any:
    """Family ``name`` with seeded weights; one object for all tests, which must leave it as it was."""
    pipeline = FAMILIES[name].make()
    fill_with_random_weights(pipeline.components)
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def own_pipeline(name: str) -> Any:
    """A pipeline of family ``name`` that a test may change."""
    return copy.deepcopy(live_pipeline(name))


def request_for(name: str, **changed: Any) -> GenerationRequest:
    """The family's small call, with seed 0."""
    call = default_call(name) | changed
    return GenerationRequest(prompt=call.pop("prompt"), more=call)


def held_by(pipeline: Any, plan: Any, **options: Any) -> Held:
    """``pipeline`` under ``plan`` on an emulated device with the plan's budget."""
    device = EmulatedDevice(plan.budget.budget_bytes)
    try:
        held = hold(pipeline, plan, device, **options)
    except BaseException:
        device.close()
        raise
    held.then(device.close)
    return held


def digest_without_plan(pipeline: Any, name: str, **changed: Any) -> str:
    """The digest of what ``pipeline`` generates when nothing holds it."""
    request = request_for(name, **changed)
    generator = torch.Generator("cpu").manual_seed(0)
    call = {"generator": generator, "output_type": "pt", "return_dict": False, **request.more}
    result = pipeline(prompt=request.prompt, **call)[0]
    return tensor_digest(result if isinstance(result, torch.Tensor) else torch.stack(list(result)))


@functools.cache
def bare_digest(name: str) -> str:
    """The digest of family ``name``'s small call without any plan."""
    return digest_without_plan(live_pipeline(name), name)


def weights_bytes(module: torch.nn.Module, under: str = "") -> int:
    """Device bytes of the module's distinct tensors whose names start with ``under``."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return sum(aligned_bytes(tensor) for name, tensor in named if name.startswith(under))


def state_of(pipeline: Any) -> list[Any]:
    """Everything about a pipeline that a plan touches, in comparable form."""
    found: list[Any] = [sorted(vars(pipeline))]
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            for part in module.modules():
                hooks = (part._forward_pre_hooks, part._forward_hooks, part._forward_hooks_always_called)
                found.append((sorted(vars(part)), [len(each) for each in hooks]))
            tensors = [*module.named_parameters(), *module.named_buffers()]
            found.extend((name, id(each), each.device, tensor_digest(each)) for name, each in tensors)
    return found
