"""One component on the device, by the runtime's protocol: acquire, blocks, slots, release."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from roost.planner.cost.simulator.lanes import Lanes
from roost.planner.cost.simulator.schedule import MovedWeights, UseCost


@dataclass(slots=True)
class SimulatedSlot:
    """A device buffer: which block it holds, when that is ready to read, and when it is free to overwrite."""

    block: int | None = None
    ready_s: float = 0.0
    free_s: float = 0.0


@dataclass(slots=True)
class ActiveComponent:
    """A component's weights on the device, from acquire to release."""

    weights: MovedWeights
    lanes: Lanes
    trunk_ready_s: float = 0.0
    ready_s: dict[int, float] = field(default_factory=dict)  # of blocks that have a buffer of their own
    slots: list[SimulatedSlot] = field(default_factory=list)
    slot_of: dict[int, SimulatedSlot] = field(default_factory=dict)  # by the block that it holds
    due: dict[int, float] = field(default_factory=dict)  # residents to copy as the calls come to them, after its fence
    held_bytes: int = 0
    rings: dict[tuple[int, ...], tuple[list[int], dict[int, int]]] = field(default_factory=dict)
    streams: bool = field(init=False)

    def __post_init__(self) -> None:
        self.streams = self.weights.streams  # asked for every block

    def acquire(self, order: tuple[int, ...]) -> None:
        """Allocates, then copies in predicted order: the trunk, residents, and streamed blocks while there are slots.

        Residents behind the first streamed block without a slot are copied when the calls come to them.
        """
        weights, lanes = self.weights, self.lanes
        self._allocate(weights.acquired_bytes)
        if weights.stays:
            return
        # New memory may still be read by queued kernels: copies wait for all compute so far.
        fence_s = lanes.compute_s
        self.trunk_ready_s = self._copy(None, weights.trunk_s, weights.trunk_bytes, fence_s)
        if self.streams:
            self._fill(order, fence_s)
        elif not weights.hold:
            for block in dict.fromkeys((*order, *range(len(weights.block_bytes)))):
                self._copy_own(block, fence_s)
        if weights.strategy == "component-offload":
            lanes.synchronise()

    def _fill(self, order: tuple[int, ...], fence_s: float) -> None:
        """The first copies of a component that streams; those the use never calls come last."""
        weights = self.weights
        free = [SimulatedSlot(free_s=fence_s) for _ in range(max(1, weights.slots))]
        self.slots, taken = list(free), False
        for block in dict.fromkeys((*order, *range(len(weights.block_bytes)))):
            if block not in weights.resident:
                taken = not free
                if free:
                    self._issue(free.pop(0), block)
            elif taken:
                self.due[block] = fence_s
            else:
                self._copy_own(block, fence_s)

    def run_blocks(self, use: UseCost, order: tuple[int, ...]) -> None:
        """The use's blocks, round by round; as one operation where nothing can make any of them wait."""
        if not self.lanes.recording and self._is_settled(use):
            self.lanes.compute(self.weights.component, None, sum(seconds for _, seconds in use.blocks), 0.0)
            return
        rounds = use.rounds if self.streams else 1
        for _ in range(rounds):
            for block, seconds in use.blocks:
                self._run_block(block, seconds / rounds, order)

    def _is_settled(self, use: UseCost) -> bool:
        """Whether all blocks of the use are on the device and stay there."""
        if self.weights.stays:
            return True
        now_s, ready_s = self.lanes.compute_s, self.ready_s
        return not self.streams and all(ready_s.get(block, math.inf) <= now_s for block, _ in use.blocks)

    def _run_block(self, block: int, seconds: float, order: tuple[int, ...]) -> None:
        """One block's forward; a streamed one's slot then takes the next block that isn't there, in cyclic order."""
        weights, lanes = self.weights, self.lanes
        if weights.stays:
            lanes.compute(weights.component, block, seconds, 0.0)
        elif self.streams and block not in weights.resident:
            slot = self.slot_of.get(block) or self._missed(block)
            slot.free_s = lanes.compute(weights.component, block, seconds, slot.ready_s)
            self._issue_next(slot, order, block)
        else:
            lanes.compute(weights.component, block, seconds, self._own_ready_s(block))

    def run_trunk(self, seconds: float) -> None:
        self.lanes.compute(self.weights.component, None, seconds, self.trunk_ready_s)

    def release(self) -> None:
        """Drops the device copy once every copy into it has landed; ``component-offload`` copies back first."""
        lanes, weights = self.lanes, self.weights
        late_s = max([self.trunk_ready_s, *self.ready_s.values(), *(slot.ready_s for slot in self.slots)])
        lanes.compute(weights.component, None, 0.0, late_s)
        if weights.strategy == "component-offload":
            lanes.copy(weights.component, None, weights.back_s, -weights.total_bytes, lanes.compute_s)
            lanes.synchronise()
        lanes.allocate(weights.component, "weights", -self.held_bytes)
        self.held_bytes = 0

    def state(self) -> list[float]:
        """Everything that decides what comes next, relative to the queues, for comparing two passes."""
        compute_s, copy_s = self.lanes.compute_s, self.lanes.copy_s
        own = [max(0.0, ready_s - compute_s) for ready_s in (self.trunk_ready_s, *self.ready_s.values())]
        # Which of the slots holds a block changes from pass to pass and changes nothing. The next copy into a slot
        # begins once both the slot and the queue are free: of a queue that has long been idle, the end decides nothing.
        slots = sorted(
            (
                -1 if slot.block is None else slot.block,
                max(0.0, slot.ready_s - compute_s),
                max(slot.free_s, copy_s) - compute_s,
            )
            for slot in self.slots
        )
        return [len(own), *own, *(value for slot in slots for value in slot)]

    def shift(self, seconds: float) -> None:
        """Moves every time in it forward: so many equal passes went by."""
        self.trunk_ready_s += seconds
        self.ready_s = {block: ready_s + seconds for block, ready_s in self.ready_s.items()}
        for slot in self.slots:
            slot.ready_s += seconds
            slot.free_s += seconds

    def _copy_own(self, block: int, fence_s: float) -> None:
        """Copies a block into the buffer of its own."""
        weights = self.weights
        self.ready_s[block] = self._copy(block, weights.block_s[block], weights.block_bytes[block], fence_s)

    def _own_ready_s(self, block: int) -> float:
        """When an own buffer is ready; a held block comes in at first touch, after the compute queued before it."""
        if block in self.due:
            self._copy_own(block, self.due.pop(block))
        elif block not in self.ready_s:
            self._allocate(self.weights.block_bytes[block])
            self._copy_own(block, self.lanes.compute_s)
        return self.ready_s[block]

    def _missed(self, block: int) -> SimulatedSlot:
        """Refills the slot whose block was needed longest ago."""
        victim = min(self.slots, key=lambda slot: slot.free_s)
        self._issue(victim, block)
        return victim

    def _issue_next(self, slot: SimulatedSlot, order: tuple[int, ...], block: int) -> None:
        """Copies the next streamed block that isn't there, and before it the residents that are used before it."""
        ring, place_of = self._ring_of(order)
        place, count = place_of[block], len(ring)
        for step in range(place + 1, place + count):
            following = ring[step % count]
            if following not in self.slot_of:
                if self.due:
                    self._copy_due(order, block, following)
                self._issue(slot, following)
                return

    def _copy_due(self, order: tuple[int, ...], block: int, following: int) -> None:
        """Copies the residents that are used after ``block`` and before ``following``, in cyclic order."""
        place, count = order.index(block), len(order)
        for step in range(place + 1, place + count):
            between = order[step % count]
            if between == following:
                return
            if between in self.due:
                self._copy_own(between, self.due.pop(between))

    def _ring_of(self, order: tuple[int, ...]) -> tuple[list[int], dict[int, int]]:
        """The streamed blocks in predicted order, and the place of each."""
        if order not in self.rings:
            ring = list(dict.fromkeys(block for block in order if block not in self.weights.resident))
            self.rings[order] = ring, {block: place for place, block in enumerate(ring)}
        return self.rings[order]

    def _issue(self, slot: SimulatedSlot, block: int) -> None:
        weights = self.weights
        if slot.block is not None:
            del self.slot_of[slot.block]
        slot.block, self.slot_of[block] = block, slot
        slot.ready_s = self._copy(block, weights.block_s[block], weights.block_bytes[block], slot.free_s)

    def _copy(self, block: int | None, seconds: float, size: int, after_s: float) -> float:
        return self.lanes.copy(self.weights.component, block, seconds, size, after_s)

    def _allocate(self, size: int) -> None:
        self.held_bytes += size
        self.lanes.allocate(self.weights.component, "weights", size)


def predicted_order(use: UseCost) -> tuple[int, ...]:
    """The order in which the use calls its blocks."""
    return tuple(block for block, _ in use.blocks)
