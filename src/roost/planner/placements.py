"""From decisions to placements: prefetch, slots, residents and master tiers of every component."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import sub
from typing import Literal, cast

from roost.blocks import resident_indices, streaming_bytes
from roost.errors import UsageError
from roost.facts.machine import HostFacts
from roost.facts.model import Component
from roost.facts.request import TIERS, Strategy, Tier
from roost.facts.resident_policy import ResidentPolicy, blocks_of_stacks
from roost.planner.buffers import all_buffers, block_buffers, block_kept, can_be_mapped
from roost.planner.rules.case import Case, Decision
from roost.planner.rules.names import kind_of

_HOST_ORDER = ("dit", "other", "text_encoder", "image_encoder", "vae")  # most-stepped first


Lossy = Literal["tiling", "slicing", "fp8"]
LossyChoices = frozenset[tuple[str, Lossy]]  # a component, and what changes its bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaming:
    """The parameters that only ``layerwise-offload`` has; tiers count blocks."""

    resident_blocks: int
    resident_policy: ResidentPolicy
    prefetch: int
    slots: int
    hold: bool
    pinned: int = 0
    pageable: int = 0
    mapped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where one component's weights live, and the decision behind it."""

    component: Component
    strategy: Strategy
    linger: bool
    streaming: Streaming | None
    decision: Decision
    fsdp_shards: int = 1
    tier: Tier = "pageable"  # of a master that moves as a whole
    tiling: bool = False
    slicing: bool = False

    @property
    def lossy(self) -> LossyChoices:
        """What of it changes bits, under the component's name."""
        chosen: tuple[tuple[Lossy, bool], ...] = (("tiling", self.tiling), ("fp8", self.component.storage is not None))
        return frozenset((self.component.name, choice) for choice, on in chosen if on)

    @property
    def block_bytes(self) -> tuple[int, ...]:
        """What a buffer of each block takes."""
        return block_buffers(self.component)

    @property
    def mappable_bytes(self) -> tuple[int, ...]:
        """What of a buffer of each block its file can be the master of, if anything can."""
        return tuple(map(sub, self.block_bytes, block_kept(self.component)))

    @property
    def trunk_bytes(self) -> int:
        """What a buffer of all that no unit holds takes."""
        return all_buffers(self.component) - sum(self.block_bytes)

    @property
    def resident_indices(self) -> frozenset[int]:
        """Which blocks stay, as the runtime selects them."""
        if self.streaming is None:
            return frozenset()
        counts = [unit.count for unit in self.component.units]
        return resident_indices(counts, self.streaming.resident_blocks, self.streaming.resident_policy)

    @property
    def tier_order(self) -> tuple[int, ...]:
        """The blocks in the order in which masters are given out: what streams, then what stays."""
        kept = frozenset() if self.streaming is None or self.streaming.hold else self.resident_indices
        return tuple(sorted(range(len(self.block_bytes)), key=lambda block: (block in kept, block)))

    @property
    def stage_bytes(self) -> int:
        """Weights on the device while the component is in use."""
        if self.strategy == "fsdp":
            return math.ceil(self.component.load_bytes / self.fsdp_shards)
        if self.streaming is None or self.streaming.hold:
            return all_buffers(self.component)
        return self.trunk_bytes + streaming_bytes(self.block_bytes, self.resident_indices, self.streaming.slots)

    @property
    def idle_bytes(self) -> int:
        """Weights on the device while other components are in use."""
        return self.stage_bytes if self.strategy in ("resident", "fsdp") else 0

    @property
    def master_bytes(self) -> int:
        """Bytes of its masters, those in checkpoint files included."""
        if self.strategy in ("resident", "fsdp"):
            return 0
        return all_buffers(self.component)


def place(case: Case, decisions: Mapping[str, Decision]) -> tuple[Placement, ...]:
    """Every component's placement, master tiers within the host's memory and pinned budget.

    Raises UsageError for a typed parameter that doesn't suit the component.
    """
    placements = [_placement(case, each, decisions[each.name]) for each in case.components]
    return _with_tiers(placements, case.machine.host)


def _placement(case: Case, component: Component, decision: Decision) -> Placement:
    layerwise = decision.strategy == "layerwise-offload"
    _check_vae(component, decision)
    return Placement(
        component=component,
        strategy=decision.strategy,
        linger=bool(decision.parameters.get("linger", False)),
        streaming=_streaming(case, component, decision) if layerwise else None,
        decision=decision,
        fsdp_shards=case.choices.num_gpus,
        tiling=bool(decision.parameters.get("tiling", False)),
        slicing=bool(decision.parameters.get("slicing", False)),
    )


def _check_vae(component: Component, decision: Decision) -> None:
    for switch in ("tiling", "slicing"):
        if switch in decision.parameters and kind_of(component) != "vae":
            raise UsageError(
                f"{decision.decided_by.detail}: {switch} is for VAEs, and component {component.name!r}"
                " is none; set it on the VAE alone."
            )


def _streaming(case: Case, component: Component, decision: Decision) -> Streaming:
    blocks = sum(stack.count for stack in component.units)
    policy = cast(ResidentPolicy, decision.parameters.get("resident_policy", "strided"))
    resident = cast(int, decision.parameters.get("resident_blocks", sum(blocks_of_stacks(policy))))
    _check_policy(component, decision, policy, resident)
    if resident > blocks:
        raise UsageError(
            f"{decision.decided_by.detail}: resident_blocks {resident} is more than the {blocks} blocks"
            f" of component {component.name!r}; give at most {blocks}."
        )
    prefetch = blocks_ahead(case, component, decision)
    hold = case.profile.chunked_vae and kind_of(component) == "vae"
    return Streaming(
        resident_blocks=resident,
        resident_policy=policy,
        prefetch=prefetch,
        slots=min(prefetch + 1, blocks - resident),
        hold=cast(bool, decision.parameters.get("hold", hold)),
        **_typed_tiers(component, decision, blocks),
    )


def _check_policy(component: Component, decision: Decision, policy: ResidentPolicy, resident: int) -> None:
    """Raises UsageError for a number for each stack that its stacks don't have."""
    kept, counts = blocks_of_stacks(policy), [stack.count for stack in component.units]
    if not kept:
        return
    typed = f"{decision.decided_by.detail}: resident_policy {policy}"
    if len(kept) != len(counts) or any(more > count for more, count in zip(kept, counts, strict=True)):
        stacks = " + ".join(f"{stack.count} of {stack.name}" for stack in component.units) or "no blocks"
        raise UsageError(f"{typed} doesn't suit component {component.name!r}, which has {stacks}.")
    if resident != sum(kept):
        raise UsageError(f"{typed} keeps {sum(kept)} blocks, not {resident}; leave resident_blocks out.")


def tiers_are_typed(decision: Decision) -> bool:
    """Whether the user said how many blocks have their masters where."""
    return any(tier in decision.parameters for tier in TIERS)


def _typed_tiers(component: Component, decision: Decision, blocks: int) -> dict[Tier, int]:
    """How many blocks each tier has as typed, the rest of them pageable; empty where no tier was typed."""
    if not tiers_are_typed(decision):
        return {}
    typed = {tier: cast(int, decision.parameters.get(tier, 0)) for tier in TIERS}
    option, total = decision.decided_by.detail, sum(typed.values())
    if total > blocks:
        raise UsageError(
            f"{option}: {total} masters are more than the {blocks} blocks of component {component.name!r};"
            f" give at most {blocks} in all."
        )
    if typed["mapped"] and not can_be_mapped(component):
        raise UsageError(
            f"{option}: masters of component {component.name!r} can't be mapped, since its files don't have its weights"
            " as they load; leave mapped out."
        )
    return {**typed, "pageable": blocks - typed["pinned"] - typed["mapped"]}


def blocks_ahead(case: Case, component: Component, decision: Decision) -> int:
    """The prefetch: a ``--set`` parameter, else the typed DiT prefetch, else the rule's, else 1."""
    blocks = sum(stack.count for stack in component.units)
    typed_in_set = decision.decided_by.typed and "prefetch" in decision.parameters
    typed = case.choices.prefetch
    if typed is not None and kind_of(component) == "dit" and not typed_in_set:
        ahead = int(typed) if typed >= 1 else 1 + math.floor(typed * (blocks - 1) + 0.5)
    else:
        ahead = cast(int, decision.parameters.get("prefetch", 1))
    return max(1, min(ahead, blocks))


def _with_tiers(placements: list[Placement], host: HostFacts) -> tuple[Placement, ...]:
    """Gives out host memory: as typed, then what can't be mapped, then blocks, the most-stepped components' first."""
    typed = [each for each in placements if each.streaming and tiers_are_typed(each.decision)]
    streamed = [each for each in placements if each.streaming and each not in typed]
    mappable = {each.component.name for each in streamed if can_be_mapped(each.component)}
    in_files = sum(sum(each.mappable_bytes) for each in streamed if each.component.name in mappable)
    pinned_bytes, mapped_bytes = _typed_bytes(typed)
    room = max(0, host.available_bytes - sum(each.master_bytes for each in placements) + in_files + mapped_bytes)
    pinnable = max(0, host.pinnable_bytes - pinned_bytes)
    tiers: dict[str, Streaming] = {}
    for placement in sorted(streamed, key=_host_priority):
        streaming = cast(Streaming, placement.streaming)
        may_stay = placement.component.name in mappable
        sizes = placement.mappable_bytes if may_stay else placement.block_bytes
        pinned = _fitting(sizes, min(pinnable, room) if may_stay else pinnable)
        pageable = _fitting(sizes[pinned:], room - sum(sizes[:pinned])) if may_stay else len(sizes) - pinned
        mapped = len(sizes) - pinned - pageable
        pinnable -= sum(sizes[:pinned])
        room -= sum(sizes[: pinned + pageable]) if may_stay else 0
        tiers[placement.component.name] = replace(streaming, pinned=pinned, pageable=pageable, mapped=mapped)
    return tuple(replace(each, streaming=tiers.get(each.component.name, each.streaming)) for each in placements)


def _typed_bytes(placements: Iterable[Placement]) -> tuple[int, int]:
    """Bytes of the blocks whose masters were typed to be pinned, and to be mapped."""
    pinned = mapped = 0
    for placement in placements:
        streaming = cast(Streaming, placement.streaming)
        order = placement.tier_order
        pinned += sum(placement.block_bytes[block] for block in order[: streaming.pinned])
        mapped += sum(placement.mappable_bytes[block] for block in order[streaming.pinned + streaming.pageable :])
    return pinned, mapped


def _fitting(sizes: tuple[int, ...], room_bytes: int) -> int:
    """How many of the first blocks fit together."""
    return sum(total <= room_bytes for total in accumulate(sizes))


def _host_priority(placement: Placement) -> tuple[int, int]:
    return _HOST_ORDER.index(kind_of(placement.component)), placement.component.position


def lossy_of(placements: Iterable[Placement]) -> LossyChoices:
    """What changes bits in any of the placements."""
    return frozenset(choice for each in placements for choice in each.lossy)
