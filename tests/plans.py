"""Plans for live pipelines: what the planner would record of them, under the strategies that a test asks for."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cards import card
from roost.blocks import leaf_stacks, streamed_stacks
from roost.facts.machine import HostFacts
from roost.facts.model import Kind, RolePart, Stack, StoredFile
from roost.facts.request import Workload
from roost.pipelines.formats.packed_tensors import stored_sizes
from roost.pipelines.quiet import quiet_libraries
from roost.plan import ComponentPlan, PlanDocument
from roost.plan.budget import Budget, StageWeights
from roost.plan.fields import Masters, StackRecord
from roost.plan.schema import MachineRecord, ModelRecord, Policy

GIB = 1024**3
LAYERWISE = {"strategy": "layerwise-offload"}

_KINDS: dict[str, Kind] = {
    "transformer": "dit",
    "unet": "dit",
    "text_encoder": "text_encoder",
    "image_encoder": "image_encoder",
    "vae": "vae",
}


def plan_for(
    pipeline: Any,
    strategy: str | Mapping[str, Any] = "resident",
    *,
    components: Mapping[str, Mapping[str, Any]] | None = None,
    stages: list[StageWeights] | None = None,
    budget_bytes: int = GIB,
    free_bytes: int | None = None,
) -> PlanDocument:
    """A plan for ``pipeline``: ``strategy`` everywhere, with its parameters; ``components`` override single ones.

    ``resident_blocks`` may be a share below 1 of all blocks.
    """
    everywhere = {"strategy": strategy} if isinstance(strategy, str) else dict(strategy)
    modules = {name: each for name, each in pipeline.components.items() if isinstance(each, torch.nn.Module)}
    placed = {
        name: component_plan(name, module, **{**everywhere, **(components or {}).get(name, {})})
        for name, module in modules.items()
    }
    free = budget_bytes if free_bytes is None else free_bytes
    return PlanDocument(
        schema=1,
        versions={"roost": "0"},
        model=_model(type(pipeline).__name__),
        workload=Workload(width=64, height=64, frames=None, steps=2, batch=1, guidance=None),
        machine=_machine(free),
        budget=_budget(stages or [], free, budget_bytes),
        fits=True,
        load_order=list(placed),
        policy=Policy(name="rules", mode="auto", num_gpus=1, choices=[], layerwise_groups=[], fired=[], blocked=[]),
        role=RolePart(name="monolithic", stages=(), loads=tuple(placed), keeps=(), skips=(), load_bytes=0, warnings=()),
        components=placed,
        predicted=None,
        measured=None,
        warnings=[],
    )


def component_plan(name: str, module: torch.nn.Module, **parameters: Any) -> ComponentPlan:
    """What a plan records of one live component."""
    sizes = stored_sizes(module)
    stacks = streamed_stacks(sizes)
    if parameters.pop("leaf_level", False):
        stacks = leaf_stacks(sizes, stacks) or stacks
    blocks = sum(stack.count for stack in stacks)
    dtypes = [each.dtype for each in module.parameters() if each.is_floating_point() and each.itemsize > 1]
    return ComponentPlan(
        kind=_KINDS.get(name.removesuffix("_2").removesuffix("_3"), "other"),
        library=type(module).__module__.split(".")[0],
        class_name=type(module).__name__,
        variant=None,
        load_dtype=str(min(dtypes, key=lambda dtype: dtype.itemsize)).removeprefix("torch."),
        load_bytes=sum(sizes.values()),
        trunk_bytes=sum(sizes.values()) - sum(stack.bytes for stack in stacks),
        stacks=[_stack_record(stack) for stack in stacks],
        tiling=False,
        decided_by="default",
        why="a test asked for it",
        **_strategy(blocks, **parameters),
    )


def _stack_record(stack: Stack) -> StackRecord:
    return StackRecord(name=stack.name, count=stack.count, bytes=stack.bytes, leaves=list(stack.leaves))


def _strategy(blocks: int, strategy: str, *, linger: bool = False, **layerwise: Any) -> dict[str, Any]:
    if strategy != "layerwise-offload":
        names = ("resident_blocks", "resident_policy", "prefetch", "slots", "hold", "master")
        return {"strategy": strategy, "linger": linger, **dict.fromkeys(names)}
    share = layerwise.get("resident_blocks", 0)
    resident = int(share * blocks) if isinstance(share, float) else min(share, blocks)
    prefetch = min(layerwise.get("prefetch", 1), max(1, blocks))
    return {
        "strategy": strategy,
        "linger": linger,
        "resident_blocks": resident,
        "resident_policy": layerwise.get("resident_policy", "strided"),
        "prefetch": prefetch,
        "slots": min(prefetch + 1, blocks - resident),
        "hold": layerwise.get("hold", False),
        "master": Masters(pinned=0, pageable=blocks - resident, mapped=0),
    }


def _model(pipeline: str) -> ModelRecord:
    return ModelRecord(
        path=None,
        source="memory",
        fingerprint="0" * 64,
        pipeline=pipeline,
        family=None,
        task="image",
        variant=None,
        files={},
    )


def _machine(free_bytes: int) -> MachineRecord:
    return MachineRecord(
        gpu=card(free_bytes, free_bytes, device_kind="emulated", name="emulated", source="emulated"),
        host=HostFacts(available_bytes=GIB, pinnable_bytes=0, source="test"),
    )


def _budget(stages: list[StageWeights], free_bytes: int, budget_bytes: int) -> Budget:
    return Budget(
        total_bytes=free_bytes,
        free_bytes=free_bytes,
        headroom_bytes=free_bytes - budget_bytes,
        budget_bytes=budget_bytes,
        stages=stages,
        peak_weights_bytes=max((stage.weights_bytes for stage in stages), default=0),
        deficit_bytes=0,
        host_bytes=0,
        host_deficit_bytes=0,
        verdict="fits",
    )


def plan_in(directory: Path, strategy: Any, tier: str, dtype: torch.dtype | None = None) -> PlanDocument:
    """Every master of every component in ``tier``; ``dtype`` is the one that they load at."""
    from diffusers import DiffusionPipeline  # plans alone need no second library

    with quiet_libraries():
        plan = plan_for(DiffusionPipeline.from_pretrained(directory, torch_dtype=dtype), strategy)
    files = {
        path.relative_to(directory).as_posix(): StoredFile(bytes=path.stat().st_size, sha256="0" * 64)
        for path in directory.rglob("*.safetensors")
    }
    components = {}
    for name, each in plan.components.items():
        counts = dict.fromkeys(("pinned", "pageable", "mapped"), 0) | {tier: sum(stack.count for stack in each.stacks)}
        components[name] = each.model_copy(update={"master": Masters(**counts)})
    host = replace(plan.machine.host, pinnable_bytes=2**30)
    changed = {
        "components": components,
        "model": plan.model.model_copy(update={"files": files}),
        "machine": plan.machine.model_copy(update={"host": host}),
    }
    return plan.model_copy(update=changed)
