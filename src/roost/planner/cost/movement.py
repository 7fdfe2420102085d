"""From a placement to how its weights move: which blocks stay, from which tier each comes, what loading takes."""

from __future__ import annotations

from roost.facts.model import Component
from roost.facts.rates import H2D, RateKey
from roost.facts.request import Tier
from roost.planner.buffers import all_buffers, block_kept, cast_bytes, waits_in_files
from roost.planner.cost.rates import Speeds
from roost.planner.cost.simulator import MovedWeights
from roost.planner.placements import Placement


def moved_weights(placement: Placement, speeds: Speeds) -> MovedWeights:
    """The placement as the simulation takes it."""
    if placement.strategy in ("resident", "fsdp"):
        return _staying(placement)
    tiers = block_tiers(placement)
    streaming = placement.streaming
    trunk_tier = trunk_tier_of(placement)
    sizes = placement.block_bytes
    back = RateKey.PINNED_D2H if trunk_tier == "pinned" else RateKey.PAGEABLE_D2H
    return MovedWeights(
        component=placement.component.name,
        strategy=placement.strategy,
        trunk_bytes=placement.trunk_bytes,
        block_bytes=sizes,
        trunk_s=placement.trunk_bytes / _h2d_bytes_per_s(trunk_tier, speeds),
        block_s=tuple(size / _h2d_bytes_per_s(tier, speeds) for size, tier in zip(sizes, tiers, strict=True)),
        resident=residents_of(placement),
        slots=streaming.slots if streaming else 0,
        hold=bool(streaming and streaming.hold),
        linger=placement.linger,
        back_s=all_buffers(placement.component) / speeds[back] if placement.strategy == "component-offload" else 0.0,
    )


def _staying(placement: Placement) -> MovedWeights:
    sizes = placement.block_bytes
    return MovedWeights(
        component=placement.component.name,
        strategy=placement.strategy,
        trunk_bytes=placement.stage_bytes - sum(sizes) if placement.strategy == "resident" else placement.stage_bytes,
        block_bytes=sizes if placement.strategy == "resident" else (0,) * len(sizes),
        trunk_s=0.0,
        block_s=(0.0,) * len(sizes),
    )


def residents_of(placement: Placement) -> frozenset[int]:
    """The blocks that stay while the component is in use; all of them unless it streams."""
    streaming = placement.streaming
    if streaming is None or streaming.hold:
        return frozenset(range(len(placement.block_bytes)))
    return placement.resident_indices


def block_tiers(placement: Placement) -> tuple[Tier, ...]:
    """The tier of each block's master: streamed blocks are pinned first, then residents, each in order."""
    count, streaming = len(placement.block_bytes), placement.streaming
    if streaming is None or streaming.pinned >= count:
        tier: Tier = "pinned" if streaming else placement.tier
        return (tier,) * count
    tiers: dict[int, Tier] = {}
    for rank, block in enumerate(placement.tier_order):
        if rank < streaming.pinned:
            tiers[block] = "pinned"
        else:
            tiers[block] = "pageable" if rank < streaming.pinned + streaming.pageable else "mapped"
    return tuple(tiers[block] for block in range(count))


def trunk_tier_of(placement: Placement) -> Tier:
    """The trunk's master: pinned when every block's is; never mapped beside blocks that aren't all mapped."""
    if placement.streaming is None:
        return placement.tier
    tiers = set(block_tiers(placement))
    return tiers.pop() if len(tiers) == 1 else "pageable"


def tier_bytes(placement: Placement) -> dict[Tier, int]:
    """Host bytes of the component's masters in each tier; none for what stays on the device.

    What a mapped master keeps in memory, because its file has it otherwise, is pageable.
    """
    found: dict[Tier, int] = {"pinned": 0, "pageable": 0, "mapped": 0}
    if placement.strategy not in ("resident", "fsdp"):
        kept = block_kept(placement.component)
        masters = [
            (trunk_tier_of(placement), placement.trunk_bytes, placement.component.kept_bytes - sum(kept)),
            *zip(block_tiers(placement), placement.block_bytes, kept, strict=True),
        ]
        for tier, size, kept_bytes in masters:
            in_file = size - kept_bytes if tier == "mapped" else 0
            found["mapped"] += in_file
            found["pageable" if tier == "mapped" else tier] += size - in_file
    return found


def host_bytes_of(placement: Placement) -> int:
    """Host memory that the component's masters take; what lies in files takes none."""
    found = tier_bytes(placement)
    return found["pinned"] + found["pageable"]


def _h2d_bytes_per_s(tier: Tier, speeds: Speeds) -> float:
    if tier == "mapped":
        return min(speeds[RateKey.DISK], speeds[RateKey.PAGEABLE_H2D])
    return speeds[H2D[tier]]


# What loading takes before the first generation: reading, casting, pinning, and moving residents onto the device.


def load_s(placement: Placement, speeds: Speeds) -> float:
    """Seconds to load one component. Files of mapped masters are read too: the engine compares their bytes once.

    Where its masters come late, ``late_s`` of it pass when they do.
    """
    component = placement.component
    read_s, cast_s = _read_s(component, speeds)
    pin_s = tier_bytes(placement)["pinned"] / speeds[RateKey.PIN]
    moved = placement.stage_bytes if placement.strategy in ("resident", "fsdp") else 0
    return read_s + cast_s + pin_s + moved / speeds[RateKey.PAGEABLE_H2D]


def _read_s(component: Component, speeds: Speeds) -> tuple[float, float]:
    """Seconds to read its files, and to cast what loads in another dtype."""
    return component.bytes / speeds[RateKey.DISK], cast_bytes(component) / speeds[RateKey.CAST]


def late_s(placement: Placement, speeds: Speeds) -> float:
    """Seconds to read, cast and pin the masters in host memory."""
    tiers = tier_bytes(placement)
    if not waits_in_files(placement.component):
        return sum(_read_s(placement.component, speeds)) + tiers["pinned"] / speeds[RateKey.PIN]
    share = (tiers["pinned"] + tiers["pageable"]) / max(1, sum(tiers.values()))
    return share * placement.component.bytes / speeds[RateKey.DISK] + tiers["pinned"] / speeds[RateKey.PIN]
