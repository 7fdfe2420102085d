"""How much of a component stays on the device: as planned, as fits now, and less when memory ran out."""

from __future__ import annotations

from collections.abc import Sequence

from roost.blocks import block_names, resident_indices, streaming_bytes
from roost.plan import ComponentPlan
from roost.residency.weights.units import UnitKind


class Rungs:
    """The resident blocks and slots of one component. ``step_down`` lowers them for good, ``fit`` until it is asked
    again."""

    def __init__(self, plan: ComponentPlan) -> None:
        self._plan = plan
        self.streams = plan.strategy == "layerwise-offload" and not plan.hold
        self.names = block_names(tuple(each.stack for each in plan.stacks))
        self.use_order = [self.names[number] for number in plan.use_order or ()]  # as planned, where stacks take turns
        self.resident_blocks = plan.resident_blocks or 0  # now
        self._most_blocks = self.resident_blocks
        self._most_slots = self._first_slots = self._planned_slots()
        self._step = 1

    @property
    def slots(self) -> int:
        return self._slots(self.resident_blocks) if self.streams else 0

    def kinds(self) -> dict[str, UnitKind]:
        """What becomes of every block."""
        if self._plan.strategy != "layerwise-offload":
            return dict.fromkeys(self.names, "resident")
        staying = self._staying(self.resident_blocks)
        other: UnitKind = "streamed" if self.streams else "held"
        return {name: "resident" if index in staying else other for index, name in enumerate(self.names)}

    def most_bytes(self, block_bytes: Sequence[int]) -> int:
        """Device bytes of the blocks that stay during a stage, and of the slots, when no memory is short."""
        return self._bytes(block_bytes, self._most_blocks) if self.streams else sum(block_bytes)

    def fit(self, block_bytes: Sequence[int], free_bytes: int) -> None:
        """As many resident blocks as fit, at most as planned; if not even none fits, none."""
        if self.streams:
            counts = range(self._most_blocks, -1, -1)
            fitting = (count for count in counts if self._bytes(block_bytes, count) <= free_bytes)
            self.resident_blocks = next(fitting, 0)

    def step_down(self, block_bytes: Sequence[int]) -> str | None:
        """Fewer resident blocks, 1, 2, 4 … at a time and until that saves memory, then fewer slots."""
        if not self.streams:
            return None
        before = self._bytes(block_bytes, self.resident_blocks)
        count = self.resident_blocks
        while count > 0:
            count = max(0, count - self._step)
            self._step *= 2
            # The first demotion of a component that was all resident must pay for its slots.
            if self._bytes(block_bytes, count) < before:
                said = f"{count} resident blocks instead of {self.resident_blocks}"
                self.resident_blocks = self._most_blocks = count
                return said
        slots = self.slots
        if slots < 2:
            return None
        self._most_slots = slots - 1
        return f"{slots - 1} slots instead of {slots}"

    def lowered(self) -> tuple[int, int] | None:
        """Resident blocks and slots after steps down; None when there were none."""
        if not self.streams:
            return None
        fewer_blocks = self._most_blocks < (self._plan.resident_blocks or 0)
        if not fewer_blocks and self._most_slots == self._first_slots:
            return None
        return self._most_blocks, self._slots(self._most_blocks)

    def _planned_slots(self) -> int:
        ahead = (self._plan.prefetch or 1) + 1
        planned = self._plan.slots or 0
        return planned if 0 < planned < len(self.names) - self.resident_blocks else max(planned, ahead)

    def _slots(self, resident_blocks: int) -> int:
        return min(self._most_slots, len(self.names) - resident_blocks)

    def _staying(self, resident_blocks: int) -> frozenset[int]:
        counts = [stack.count for stack in self._plan.stacks]
        return resident_indices(counts, resident_blocks, self._plan.resident_policy or "strided")

    def _bytes(self, block_bytes: Sequence[int], resident_blocks: int) -> int:
        return streaming_bytes(block_bytes, self._staying(resident_blocks), self._slots(resident_blocks))
