"""Less VRAM is free than planned: fewer resident blocks, or a refusal before anything is loaded."""

from __future__ import annotations

from roost.blocks import resident_indices
from roost.errors import NothingFits
from roost.plan import ComponentPlan, PlanDocument
from roost.plan.fields import Masters
from roost.plan.schema import StageWeights
from roost.units import format_bytes


def fewer_resident_blocks(plan: PlanDocument, free_bytes: int) -> tuple[PlanDocument, list[str]]:
    """The plan for ``free_bytes`` of VRAM, and what changed, in words; the plan itself when that is what it expected.

    Only components of a stage that no longer fits give up resident blocks. Raises NothingFits with the deficit when
    none are left to give up. Blocks count as the mean of their stack.
    """
    if free_bytes >= plan.budget.free_bytes:
        return plan, []
    allowed = max(0, free_bytes - plan.budget.headroom_bytes)
    components = dict(plan.components)
    while (stage := _overfull(plan, components, allowed)) is not None:
        name = _most_resident(stage, components)
        if name is None:
            deficit = _stage_bytes(stage, plan, components) - allowed
            raise NothingFits(
                f"{format_bytes(free_bytes)} of VRAM is free now, and {stage.name!r} needs {format_bytes(deficit)} "
                "more than that leaves for weights; free some, or plan again with --vram."
            )
        components[name] = _one_fewer(components[name])
    changes = [
        f"{name}: {components[name].resident_blocks} resident blocks instead of {planned.resident_blocks}, because "
        f"only {format_bytes(free_bytes)} of VRAM is free and the plan expected {format_bytes(plan.budget.free_bytes)}"
        for name, planned in plan.components.items()
        if components[name].resident_blocks != planned.resident_blocks
    ]
    return (plan.model_copy(update={"components": components}), changes) if changes else (plan, [])


def _overfull(plan: PlanDocument, components: dict[str, ComponentPlan], allowed: int) -> StageWeights | None:
    return next((stage for stage in plan.budget.stages if _stage_bytes(stage, plan, components) > allowed), None)


def _stage_bytes(stage: StageWeights, plan: PlanDocument, components: dict[str, ComponentPlan]) -> int:
    saved = sum(_device_bytes(plan.components[name]) - _device_bytes(components[name]) for name in stage.components)
    return stage.weights_bytes - saved


def _most_resident(stage: StageWeights, components: dict[str, ComponentPlan]) -> str | None:
    givers = [name for name in stage.components if components[name].resident_blocks and not components[name].hold]
    return max(givers, key=lambda name: _device_bytes(components[name]), default=None)


def _device_bytes(component: ComponentPlan) -> int:
    """Bytes of the blocks that stay, and of the slots."""
    if component.resident_blocks is None or component.resident_policy is None:
        return 0
    sizes = [stack.bytes // stack.count for stack in component.stacks for _ in range(stack.count)]
    kept = resident_indices(len(sizes), component.resident_blocks, component.resident_policy)
    return sum(sizes[index] for index in kept) + (component.slots or 0) * max(sizes, default=0)


def _one_fewer(component: ComponentPlan) -> ComponentPlan:
    resident = (component.resident_blocks or 0) - 1
    blocks = sum(stack.count for stack in component.stacks)
    slots = min((component.prefetch or 1) + 1, blocks - resident)
    master = component.master
    if master is not None and master.pinned + master.pageable + master.mapped < blocks - resident:
        master = Masters(pinned=master.pinned, pageable=master.pageable + 1, mapped=master.mapped)
    return component.model_copy(
        update={"resident_blocks": resident, "slots": max(slots, component.slots or 0), "master": master}
    )
