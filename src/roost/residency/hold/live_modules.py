"""Whether live modules, and the memory that is free now, are what a plan was made for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.distributed.fsdp import FSDPModule

from roost.blocks import leaf_stacks, streamed_stacks
from roost.errors import PlanMismatch, UsageError
from roost.option_spelling import option
from roost.pipelines.adapters import without_adapters
from roost.pipelines.classes import component_class
from roost.pipelines.formats.packed_tensors import stored_sizes
from roost.plan import ComponentPlan, PlanDocument
from roost.units import format_bytes


def held_modules(pipeline: object) -> dict[str, torch.nn.Module]:
    """The pipeline's components that have weights."""
    components: Mapping[str, object] = pipeline.components  # type: ignore[attr-defined]
    return {name: each for name, each in components.items() if isinstance(each, torch.nn.Module) and _has_weights(each)}


def _has_weights(module: torch.nn.Module) -> bool:
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())


def check_strategies(plan: PlanDocument, modules: Mapping[str, torch.nn.Module], *, shards: bool = False) -> None:
    """UsageError for a plan that this runtime can't execute on ``modules``, which may not be loaded yet.

    ``shards`` says that whoever loads them can shard them.
    """
    sharded = [name for name, each in modules.items() if any(isinstance(part, FSDPModule) for part in each.modules())]
    for name in sharded:
        strategy = plan.components[name].strategy if name in plan.components else "fsdp"
        if strategy != "fsdp":
            raise UsageError(
                f"component {name!r} is managed by FSDP, which can't be combined with {strategy}: FSDP moves its own "
                f"shards; plan it with {option('set', f'{name}=fsdp')}, or leave fully_shard out."
            )
    unsharded = [name for name, each in plan.components.items() if each.strategy == "fsdp" and name not in sharded]
    if unsharded and not shards:
        raise UsageError(
            f"the plan shards {', '.join(unsharded)} by FSDP, which runs under torchrun on several GPUs and is not "
            f"available here; plan again with {option('fsdp', False)}."
        )


def check_components(plan: PlanDocument, modules: Mapping[str, torch.nn.Module]) -> None:
    """PlanMismatch, naming the first difference, unless ``modules`` are the components that the plan places."""
    for name in sorted(set(plan.components) ^ set(modules)):
        where = "the plan but not in the pipeline" if name in plan.components else "the pipeline but not in the plan"
        raise PlanMismatch(f"component {name!r} is in {where}; make a plan for this model.")
    for name, module in modules.items():
        check_component(name, module, plan.components[name])
    _check_separate(modules)


def check_component(name: str, module: torch.nn.Module, plan: ComponentPlan) -> None:
    """PlanMismatch unless the module has the class and the blocks that the plan records, with adapters or without.

    A pipeline in memory is planned with the adapters that it has, a directory's files know of none.
    """
    _check_class(name, module, plan)
    sizes = stored_sizes(module)
    planned = {stack.name: (stack.count, stack.bytes) for stack in plan.stacks}
    live = _blocks(sizes, plan)
    if live == planned:
        return
    live = _blocks(without_adapters(module, sizes), plan)
    for stack in sorted(set(live) | set(planned)):
        if live.get(stack) != planned.get(stack):
            raise PlanMismatch(
                f"{name}: the stack {stack!r} is {_described(live.get(stack))} in the model and "
                f"{_described(planned.get(stack))} in the plan; make a plan for this model."
            )


def _blocks(sizes: Mapping[str, int], plan: ComponentPlan) -> dict[str, tuple[int, int]]:
    """Number and bytes of the blocks of each stack, or of their layers where the plan streams those."""
    planned = {stack.name: stack.leaves for stack in plan.stacks if stack.leaves}
    live = {each.name: each for each in streamed_stacks(sizes)}
    for each in leaf_stacks(sizes, live.values()) if planned else ():
        if each.has_leaves(planned.get(each.name, ())):
            live[each.name] = each.of_leaves(planned[each.name])
    return {name: (each.count, each.bytes) for name, each in live.items()}


def _check_class(name: str, module: torch.nn.Module, plan: ComponentPlan) -> None:
    found = type(module).__name__
    if found != plan.class_name and not isinstance(module, component_class(plan.library, plan.class_name)):
        raise PlanMismatch(
            f"component {name!r} is a {found}, and the plan is for a {plan.class_name!r}; make a plan for this model."
        )


def _described(stack: tuple[int, int] | None) -> str:
    return "absent" if stack is None else f"{stack[0]} blocks of {format_bytes(stack[1])} ({stack[1]} bytes)"


def _check_separate(modules: Mapping[str, torch.nn.Module]) -> None:
    owners: dict[int, str] = {}
    for name, module in modules.items():
        for tensor in (*module.parameters(), *module.buffers()):
            owner = owners.setdefault(id(tensor), name)
            if owner != name:
                raise UsageError(
                    f"components {owner!r} and {name!r} share weights, which one plan can't place twice; "
                    "give each its own copy."
                )
