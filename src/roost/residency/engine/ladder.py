"""The last steps down when memory is short, what was given up in the plan's terms, and what would have helped."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from roost.option_spelling import option
from roost.plan import ComponentPlan
from roost.plan.fields import Masters
from roost.plan.revision import revised
from roost.residency.device.failures import ran_out
from roost.residency.device.interface import Device
from roost.residency.engine.component import HeldComponent
from roost.residency.weights.obstacles import find_obstacle
from roost.residency.weights.rungs import Rungs
from roost.residency.weights.transfers import Transfers
from roost.units import format_bytes


def may_leave(component: HeldComponent) -> bool:
    """Whether its weights may be elsewhere than on the device; what can't be moved exactly stays."""
    return find_obstacle(component.module) is None


def fit_blocks(component: HeldComponent, free_bytes: int, transfers: Transfers) -> None:
    """Keeps as many blocks resident as planned and as fit; says so where they are others than before."""
    before = component.rungs.resident_blocks
    now = component.fit(free_bytes)
    if now != before:
        transfers.changes.append(
            f"{component.name}: {now} resident blocks instead of {before}, because "
            f"{format_bytes(max(0, free_bytes))} of VRAM is free for it now"
        )


def acquire_with_less(component: HeldComponent, step_down: Callable[[], str | None], transfers: Transfers) -> None:
    """Acquires, with less where the device turns out to have less than it said."""
    while True:
        try:
            component.acquire()
            return
        except RuntimeError as error:
            if not ran_out(error):
                raise
            transfers.device.notice(error)
            failure = error.with_traceback(None)
        said = step_down()
        if said is None:
            raise failure
        transfers.changes.append(said)
        transfers.device.trim()


def tile_decode(component: HeldComponent) -> str | None:
    """A component that may decodes in tiles from now on; of its residency, what was given up untiled comes back.

    Tiles run every block many times, so streaming would cost them most. None where its plan or its class has no tiles,
    and where it is tiled already.
    """
    planned = component.planned
    if not component.plan.may_tile or component.plan.tiling or not hasattr(component.module, "enable_tiling"):
        return None
    if component.resident:
        component.plan = revised(component.plan, tiling=True)
    else:
        strategy = "snapshot-offload" if planned.strategy == "resident" else planned.strategy
        component.replan(revised(planned, strategy=strategy, linger=component.plan.linger, tiling=True))
    return f"decode of {component.name} ran tiled: its bits are not those of an untiled one"


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
    component.replan(revised(component.plan, strategy="snapshot-offload"))
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
    return revised(
        plan,
        strategy="layerwise-offload",
        resident_blocks=resident_blocks,
        resident_policy="strided",
        prefetch=1,
        slots=slots,
        hold=False,
        master=plan.master or Masters(pinned=0, pageable=blocks - resident_blocks, mapped=0),
    )


def _stage_bytes(component: HeldComponent, plan: ComponentPlan) -> int:
    return component.trunk_bytes + Rungs(plan).most_bytes(component.block_bytes)


# What a run gave up for good, in the plan's own terms.


_LOWERED = ("strategy", "linger", "resident_blocks", "resident_policy", "prefetch", "slots", "hold", "tiling")


def demotions_of(components: Iterable[HeldComponent]) -> dict[str, dict[str, object]]:
    """The plan's fields that the run had to lower, by component; empty when it went as planned."""
    found = {component.name: _demotion(component) for component in components}
    return {name: fields for name, fields in found.items() if fields}


def _demotion(component: HeldComponent) -> dict[str, object]:
    planned, now = component.planned, component.plan
    fields: dict[str, object] = {
        name: getattr(now, name) for name in _LOWERED if getattr(now, name) != getattr(planned, name)
    }
    lowered = component.rungs.lowered()
    if lowered is not None:
        fields |= {"resident_blocks": lowered[0], "slots": lowered[1]}
    return fields


# The smallest change of a plan that would help when memory ran out and the run can't go on with less.


def remedy_for(component: HeldComponent) -> str:
    """What to change for the component whose call failed, as a clause."""
    plan, name = component.plan, component.name
    if plan.kind == "vae" and not plan.tiling and hasattr(component.module, "enable_tiling"):
        return f"set 'tiling: true' for {name} in the plan, or ask for a smaller size"
    if streaming_plan(component) is not None:
        streamed = f"{name}=layerwise-offload{',hold=false' if plan.hold else ''}"
        return f"plan again with {option('set', streamed)}"
    return f"ask for a smaller size, fewer frames or a smaller batch, or give more with {option('vram')}"


def more_memory(device: Device, needed_bytes: int) -> str:
    """What to change where ``needed_bytes`` more of weights must be on ``device``, as a clause."""
    lacking_bytes = needed_bytes - device.free_bytes
    if lacking_bytes > 0:
        return (
            f"give at least {format_bytes(lacking_bytes)} more with {option('vram')}, or a smaller {option('headroom')}"
        )
    return f"free memory on the device, or plan again with a smaller {option('vram')}"
