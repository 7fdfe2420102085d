"""The smallest change of a plan that would help when memory ran out and nothing was left to give up."""

from __future__ import annotations

from roost.residency.component import HeldComponent


def remedy_for(component: HeldComponent) -> str:
    """What to change for the component whose call failed, as a clause."""
    plan, name = component.plan, component.name
    if plan.kind == "vae" and not plan.tiling and hasattr(component.module, "enable_tiling"):
        return f"set 'tiling: true' for {name} in the plan, or ask for a smaller size"
    if plan.strategy != "layerwise-offload" and component.rungs.names:
        return f"plan again with --set {name}=layerwise-offload"
    if plan.hold:
        return f"plan again with --set {name}=layerwise-offload,hold=false"
    return "ask for a smaller size, fewer frames or a smaller batch, or give more with --vram"
