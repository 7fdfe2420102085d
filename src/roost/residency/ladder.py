"""The last steps down when memory is short: a component follows a plan that keeps less of it on the device."""

from __future__ import annotations

from roost.plan import ComponentPlan
from roost.plan.fields import Masters
from roost.residency.component import HeldComponent
from roost.residency.obstacles import find_obstacle
from roost.residency.rungs import Rungs


def may_leave(component: HeldComponent) -> bool:
    """Whether its weights may be elsewhere than on the device; what can't be moved exactly stays."""
    return find_obstacle(component.module) is None


def give_way(component: HeldComponent, room_bytes: int) -> str | None:
    """A resident component that can't be placed comes in for its stages only, or streams where it is too large for it.

    None when it must stay, and when even the least of it exceeds ``room_bytes``.
    """
    if not component.resident or not may_leave(component):
        return None
    if component.stage_bytes <= room_bytes:
        return leave_between_stages(component)
    if least_bytes(component) > room_bytes:
        return None
    return stream_blocks(component, room_bytes)


def least_bytes(component: HeldComponent) -> int:
    """Device bytes of its weights in its stage, once the ladder has nothing left."""
    plans = [] if component.rungs.streams or not may_leave(component) else _streaming_plans(component)
    return min([component.stage_bytes, *(_stage_bytes(component, plan) for plan in plans)])


def leave_between_stages(component: HeldComponent) -> str:
    """A resident component comes in for its stages only from now on."""
    component.replan(component.plan.model_copy(update={"strategy": "snapshot-offload"}))
    return f"{component.name}: on the device during its stages only, instead of resident"


def stream_blocks(component: HeldComponent, room_bytes: int = 0) -> str | None:
    """A component that is whole on the device in its stages streams from now on; None where it can't."""
    plan, streaming = component.plan, streaming_plan(component, room_bytes)
    if streaming is None:
        return None
    component.replan(streaming)
    before = "being held" if plan.hold else plan.strategy
    staying = f" and {streaming.resident_blocks} stay" if streaming.resident_blocks else ""
    slots = f"{streaming.slots} slot{'s' if streaming.slots != 1 else ''}"
    return f"{component.name}: its blocks stream through {slots}{staying}, instead of {before}"


def streaming_plan(component: HeldComponent, room_bytes: int = 0) -> ComponentPlan | None:
    """The component's plan with so many blocks streamed that its weights fit into ``room_bytes``, or else with all.

    None where they are already, where something keeps that from being exact, and where slots would save nothing.
    """
    if component.rungs.streams or not may_leave(component):
        return None
    plans = _streaming_plans(component)
    fitting = (plan for plan in plans if _stage_bytes(component, plan) <= room_bytes)
    streaming = next(fitting, next((plan for plan in plans if not plan.resident_blocks), None))
    if streaming is None or _stage_bytes(component, streaming) >= component.stage_bytes:
        return None
    return streaming


def _streaming_plans(component: HeldComponent) -> list[ComponentPlan]:
    """From most blocks resident to none, and then through one slot."""
    blocks = len(component.rungs.names)
    kept = [(resident, min(2, blocks - resident)) for resident in range(blocks - 1, -1, -1)]
    return [_layerwise(component.plan, blocks, *each) for each in [*kept, (0, 1)] if blocks]


def _layerwise(plan: ComponentPlan, blocks: int, resident_blocks: int, slots: int) -> ComponentPlan:
    layerwise = {
        "strategy": "layerwise-offload",
        "resident_blocks": resident_blocks,
        "resident_policy": "strided",
        "prefetch": 1,
        "slots": slots,
        "hold": False,
        "master": plan.master or Masters(pinned=0, pageable=blocks - resident_blocks, mapped=0),
    }
    return plan.model_copy(update=layerwise)


def _stage_bytes(component: HeldComponent, plan: ComponentPlan) -> int:
    return component.trunk_bytes + Rungs(plan).most_bytes(component.block_bytes)
