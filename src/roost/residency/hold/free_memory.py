"""Less VRAM is free than planned: fewer resident blocks, or a refusal before anything is loaded."""

from __future__ import annotations

from roost.blocks import resident_indices
from roost.errors import NothingFits
from roost.option_spelling import option
from roost.plan import ComponentPlan, PlanDocument
from roost.plan.budget import StageWeights
from roost.plan.fields import Masters
from roost.plan.revision import revised
from roost.units import format_bytes


def fewer_resident_blocks(plan: PlanDocument, free_bytes: int) -> tuple[PlanDocument, list[str]]:
    """The plan for ``free_bytes`` of VRAM, and what changed, in words; the plan itself when that is what it expected.

    Only components of a stage that no longer fits give up resident blocks. Where that is not enough, the rest is given
    up as memory runs out; NothingFits with the deficit when a component could not even stream. Blocks count as the mean
    of their stack.
    """
    if free_bytes >= plan.budget.free_bytes:
        return plan, []
    allowed = max(0, free_bytes - plan.budget.headroom_bytes)
    components = dict(plan.components)
    for stage in plan.budget.stages:
        while _stage_bytes(stage, plan, components) > allowed:
            name = _most_resident(stage, components)
            if name is None:
                _check_streamed(stage, components, allowed, free_bytes)
                break
            components[name] = _one_fewer(components[name])
    changes = [
        f"{name}: {components[name].resident_blocks} resident blocks instead of {planned.resident_blocks}, because "
        f"only {format_bytes(free_bytes)} of VRAM is free and the plan expected {format_bytes(plan.budget.free_bytes)}"
        for name, planned in plan.components.items()
        if components[name].resident_blocks != planned.resident_blocks
    ]
    return (revised(plan, components=components), changes) if changes else (plan, [])


def _check_streamed(stage: StageWeights, components: dict[str, ComponentPlan], allowed: int, free_bytes: int) -> None:
    """Refuses a component of the stage that is too large even alone, with its blocks in one slot."""
    for name in stage.components:
        deficit = _least_bytes(components[name]) - allowed
        if deficit > 0:
            raise NothingFits(
                f"{format_bytes(free_bytes)} of VRAM is free now, and {name!r} needs {format_bytes(deficit)} more than"
                f" that leaves for weights, even with its blocks streamed; free some, or plan again with"
                f" {option('vram')}."
            )


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
    counts = [stack.count for stack in component.stacks]
    kept = resident_indices(counts, component.resident_blocks, component.resident_policy)
    return sum(sizes[index] for index in kept) + (component.slots or 0) * _slot_bytes(component)


def _least_bytes(component: ComponentPlan) -> int:
    """Bytes of the trunk and one slot."""
    return component.trunk_bytes + _slot_bytes(component)


def _slot_bytes(component: ComponentPlan) -> int:
    return max((stack.slot_bytes for stack in component.stacks), default=0)


def _one_fewer(component: ComponentPlan) -> ComponentPlan:
    resident = (component.resident_blocks or 0) - 1
    blocks = sum(stack.count for stack in component.stacks)
    slots = min((component.prefetch or 1) + 1, blocks - resident)
    master = component.master
    if master is not None and master.pinned + master.pageable + master.mapped < blocks - resident:
        master = Masters(pinned=master.pinned, pageable=master.pageable + 1, mapped=master.mapped)
    return revised(component, resident_blocks=resident, slots=max(slots, component.slots or 0), master=master)
