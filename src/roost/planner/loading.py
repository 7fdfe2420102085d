"""What loading takes before the first generation: reading, casting, pinning, and moving residents onto the device."""

from __future__ import annotations

from roost.planner.checkpoints import cast_bytes
from roost.planner.movement import tier_bytes
from roost.planner.placements import Placement
from roost.planner.rates import Speeds


def load_s(placement: Placement, speeds: Speeds) -> float:
    """Seconds to load one component. Files of mapped masters are read too: the engine compares their bytes once."""
    component = placement.component
    read_s = component.bytes / speeds["disk_bytes_per_s"]
    cast_s = cast_bytes(component) / speeds["cast_bytes_per_s"]
    pin_s = tier_bytes(placement)["pinned"] / speeds["pin_bytes_per_s"]
    moved = placement.stage_bytes if placement.strategy in ("resident", "fsdp") else 0
    return read_s + cast_s + pin_s + moved / speeds["pageable_h2d_bytes_per_s"]
