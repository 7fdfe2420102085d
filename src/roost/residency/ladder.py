"""The last steps down when memory is short: a component follows a plan that keeps less of it on the device."""

from __future__ import annotations

from roost.plan import ComponentPlan
from roost.plan.fields import Masters
from roost.residency.component import HeldComponent
from roost.residency.obstacles import find_obstacle
from roost.residency.rungs import Rungs


def leave_between_stages(component: HeldComponent) -> str:
    """A resident component comes in for its stages only from now on."""
    component.replan(component.plan.model_copy(update={"strategy": "snapshot-offload"}))
    return f"{component.name}: on the device during its stages only, instead of resident"


def stream_blocks(component: HeldComponent) -> str | None:
    """A component that is whole on the device in its stages streams its blocks from now on; None where it can't."""
    plan, streaming = component.plan, streaming_plan(component)
    if streaming is None:
        return None
    component.replan(streaming)
    before = "being held" if plan.hold else plan.strategy
    return f"{component.name}: its blocks stream through {streaming.slots} slots, instead of {before}"


def streaming_plan(component: HeldComponent) -> ComponentPlan | None:
    """The component's plan with all blocks streamed.

    None where they are already, where something keeps that from being exact, and where slots would save nothing.
    """
    plan, blocks = component.plan, len(component.rungs.names)
    if component.rungs.streams or find_obstacle(component.module) is not None:
        return None
    layerwise = {
        "strategy": "layerwise-offload",
        "resident_blocks": 0,
        "resident_policy": "strided",
        "prefetch": 1,
        "slots": min(2, blocks),
        "hold": False,
        "master": plan.master or Masters(pinned=0, pageable=blocks, mapped=0),
    }
    streaming = plan.model_copy(update=layerwise)
    saves = Rungs(streaming).most_bytes(component.block_bytes) < sum(component.block_bytes)
    return streaming if saves else None
