"""Roost's own engine on a virtual card: a plan in force on a pipeline that has nothing but its denoiser."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from denoisers import Denoiser
from foreseen import Blocks, Residency
from simulated import runtime

from plans import plan_for
from roost.plan import PlanDocument
from roost.plan.fields import Masters, StackRecord
from roost.plan.revision import revised
from roost.profiles.published import load_published_model
from roost.residency.device.cuda import CudaDevice
from roost.residency.hold.attach import Held, hold
from roost.residency.weights import host_masters

AMPLE_BYTES = 200 * 2**30  # of host memory, all of which may be pinned
HOLDING: list[Held] = []  # what is held until the process ends


def held(residency: Residency, blocks: Blocks) -> Callable[[Denoiser], torch.nn.Module]:
    """Holds the denoiser with pinned masters; ``blocks`` say in which order they run."""

    def enter(denoiser: Denoiser) -> torch.nn.Module:
        host_masters.host_memory = _repeated_memory  # weights of any size in 64 MiB
        pipeline = _pipeline_of(denoiser)
        plan = _plan(denoiser, pipeline, residency, blocks)
        HOLDING.append(hold(pipeline, plan, CudaDevice(plan.budget.budget_bytes)))
        return denoiser.module

    return enter


def _repeated_memory(count: int) -> torch.Tensor:
    size = max(1, -(-count // 4096)) * 4096
    memory = (ctypes.c_uint8 * size).from_address(runtime().sim_alias(size))
    with torch.inference_mode(False):
        return torch.frombuffer(memory, dtype=torch.uint8)


def pipeline_class(denoiser: Denoiser) -> Any:
    """The class of the model's pipeline."""
    import diffusers

    return getattr(diffusers, _index(denoiser)["_class_name"])


def _index(denoiser: Denoiser) -> dict[str, Any]:
    return dict(json.loads(load_published_model(denoiser.family.model).documents["model_index.json"]))


def _pipeline_of(denoiser: Denoiser) -> Any:
    parts = {key: None for key, value in _index(denoiser).items() if isinstance(value, list) and value[0] is not None}
    return pipeline_class(denoiser)(**{**parts, denoiser.family.component: denoiser.module})


def _plan(denoiser: Denoiser, pipeline: Any, residency: Residency, blocks: Blocks) -> PlanDocument:
    total = torch.cuda.get_device_properties(0).total_memory
    asked = {
        "strategy": "layerwise-offload",
        "resident_blocks": residency.resident_blocks,
        "prefetch": residency.prefetch,
    }
    plan = plan_for(pipeline, asked, budget_bytes=total)
    name = denoiser.family.component
    component = plan.components[name]
    records = [
        StackRecord(name=each.name, count=each.count, bytes=each.bytes, leaves=list(each.leaves))
        for each in blocks.times.stacks
    ]
    pinned = Masters(pinned=len(blocks.names), pageable=0, mapped=0)
    placed = revised(
        component, master=pinned, stacks=records, use_order=blocks.use_order, resident_policy=residency.resident_policy
    )
    components = {name: placed}
    host = replace(plan.machine.host, available_bytes=AMPLE_BYTES, pinnable_bytes=AMPLE_BYTES)
    machine = plan.machine.model_copy(update={"host": host})
    return plan.model_copy(update={"components": components, "machine": machine})
