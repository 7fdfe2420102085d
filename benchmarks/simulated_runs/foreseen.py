"""What the planner makes of the same blocks: its own simulation, and the residents it chooses for so many bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from block_times import BlockTimes
from virtual_cards import VirtualCard

from roost.blocks import block_names, resident_indices, streaming_bytes
from roost.facts.resident_policy import ResidentPolicy, policy_of
from roost.facts.stage import StageKey
from roost.planner.cost.simulator import MovedWeights, Schedule, UseCost, simulate
from roost.planner.search.candidates import LEAF_PREFETCHES, LEAF_STEPS
from roost.planner.search.stack_shares import residents_that_hide, shares_of_stacks

STEPS = 28  # of the generation for which residents are chosen
WARM, COUNTED = 2, 1  # passes before those that count as steady, and those
COMPONENT = "denoiser"


@dataclass(frozen=True, slots=True)
class Residency:
    """How much of a streamed denoiser stays, as a plan says it."""

    resident_blocks: int
    resident_policy: ResidentPolicy = "strided"
    prefetch: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """A denoiser's blocks on a card as the planner's simulation takes them, counted stack after stack."""

    times: BlockTimes
    card: VirtualCard

    @property
    def counts(self) -> list[int]:
        return [stack.count for stack in self.times.stacks]

    @property
    def names(self) -> list[str]:
        return list(block_names(self.times.stacks))

    @property
    def leaf_level(self) -> bool:
        return any(stack.leaves for stack in self.times.stacks)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.times.block_bytes[name] for name in self.names)

    @property
    def use_order(self) -> list[int]:
        """The blocks' numbers in the order in which they run."""
        place = {name: index for index, name in enumerate(self.names)}
        return [place[name] for name, _ in self.times.blocks]

    def resident(self, residency: Residency) -> frozenset[int]:
        return resident_indices(self.counts, residency.resident_blocks, residency.resident_policy)

    def slots(self, residency: Residency) -> int:
        return min(residency.prefetch + 1, sum(self.counts) - residency.resident_blocks)

    def held_bytes(self, residency: Residency) -> int:
        """Device bytes of residents and slots."""
        return streaming_bytes(self.sizes, self.resident(residency), self.slots(residency))

    def schedule(self, residency: Residency, passes: int) -> Schedule:
        sizes, link = self.sizes, self.card.link_bytes_per_s
        weights = MovedWeights(
            component=COMPONENT,
            strategy="layerwise-offload",
            trunk_bytes=self.times.trunk_bytes,
            block_bytes=sizes,
            trunk_s=self.times.trunk_bytes / link,
            block_s=tuple(size / link for size in sizes),
            resident=self.resident(residency),
            slots=self.slots(residency),
        )
        use = UseCost(
            component=COMPONENT,
            stage=StageKey(COMPONENT, "denoise"),
            before_s=0.0,
            blocks=self._computing,
            after_s=self.times.after_s,
            activation_bytes=0,
        )
        return Schedule(weights={COMPONENT: weights}, uses=(use,), sequence=((0, passes),), budget_bytes=1 << 60)

    @property
    def _computing(self) -> tuple[tuple[int, float], ...]:
        seconds = [seconds for _, seconds in self.times.blocks]
        return tuple(zip(self.use_order, seconds, strict=True))

    def first_and_steady_s(self, residency: Residency) -> tuple[float, float]:
        """Seconds of the first pass and of one that is steady, by the planner's simulation."""
        passes = WARM + COUNTED
        spans = simulate(self.schedule(residency, passes), record=True, exact=True).spans
        return spans[0].end_s, (spans[passes - 1].end_s - spans[WARM - 1].end_s) / COUNTED

    def chosen(self, room_bytes: float) -> Residency | None:
        """The fastest for a generation among those that the search would try and that take no more bytes."""
        fitting = [each for each in self._candidates() if self.held_bytes(each) <= room_bytes]
        return min(fitting, key=lambda each: simulate(self.schedule(each, STEPS)).seconds, default=None)

    def _candidates(self) -> Iterator[Residency]:
        if self.leaf_level:
            step = max(1, sum(self.counts) // LEAF_STEPS)
            for count, prefetch in product(range(0, sum(self.counts), step), LEAF_PREFETCHES):
                yield Residency(resident_blocks=count, prefetch=prefetch)
            return
        hidden = residents_that_hide(self.counts, self.sizes, dict(self._computing), self.card.link_bytes_per_s)
        for count in range(sum(self.counts) + 1):
            shares = map(policy_of, shares_of_stacks(self.counts, count, hidden))
            for policy in ("strided", *(("leading", *dict.fromkeys(shares)) if count else ())):
                for prefetch in (1, 2):
                    yield Residency(resident_blocks=count, resident_policy=policy, prefetch=prefetch)
