"""The smallest change of a plan that would help when memory ran out and the run can't go on with less."""

from __future__ import annotations

from roost.residency.component import HeldComponent
from roost.residency.ladder import streaming_plan
from roost.residency.lanes import Device
from roost.units import format_bytes


def remedy_for(component: HeldComponent) -> str:
    """What to change for the component whose call failed, as a clause."""
    plan, name = component.plan, component.name
    if plan.kind == "vae" and not plan.tiling and hasattr(component.module, "enable_tiling"):
        return f"set 'tiling: true' for {name} in the plan, or ask for a smaller size"
    if streaming_plan(component) is not None:
        return f"plan again with --set {name}=layerwise-offload{',hold=false' if plan.hold else ''}"
    return "ask for a smaller size, fewer frames or a smaller batch, or give more with --vram"


def more_memory(device: Device, needed_bytes: int) -> str:
    """What to change where ``needed_bytes`` more of weights must be on ``device``, as a clause."""
    lacking_bytes = needed_bytes - device.free_bytes
    if lacking_bytes > 0:
        return f"give at least {format_bytes(lacking_bytes)} more with --vram, or a smaller --headroom"
    return "free memory on the device, or plan again with a smaller --vram"
