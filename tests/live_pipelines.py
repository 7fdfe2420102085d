"""Tiny live pipelines for the residency tests, and the generation each makes."""

import copy
import functools
from typing import Any

import torch

from random_weights import fill_with_random_weights
from roost.residency.accelerator import EmulatedAccelerator
from roost.residency.attach import Held, hold
from roost.residency.generate import GenerationRequest
from tiny_models import FAMILIES, default_call

SIX_FAMILIES = ("wan2.2", "flux", "sdxl", "sd3", "qwen-image", "ltx")


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
    return hold(pipeline, plan, EmulatedAccelerator(plan.budget.budget_bytes), **options)
