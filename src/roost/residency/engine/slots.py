"""The ring of slots: which streamed block each holds, and the events that order its copies and its uses."""

from __future__ import annotations

from typing import Any

import torch

from roost.errors import RoostError
from roost.residency.engine.buffers import fill
from roost.residency.engine.predictor import Predictor
from roost.residency.weights.objects.parameter_tables import StandIns
from roost.residency.weights.transfers import Transfers
from roost.residency.weights.units import Unit


class Slot:
    """One device buffer. ``ready``: its latest copy is done; ``free``: no kernel reads what it held before."""

    __slots__ = ("_stand_ins", "_targets", "buffer", "free", "ready", "unit")

    def __init__(self, buffer: torch.Tensor, free: Any) -> None:
        self.buffer, self.free = buffer, free
        self.ready: Any = None
        self.unit: Unit | None = None
        self._stand_ins: dict[str, StandIns] = {}
        self._targets: dict[str, torch.Tensor] = {}

    def stand_ins(self, unit: Unit) -> StandIns:
        """What the unit's modules hold while they read this slot; made once, since that takes longer than using it."""
        found = self._stand_ins.get(unit.name)
        if found is None:
            found = self._stand_ins[unit.name] = unit.stand_ins(self.buffer)
        return found

    def target(self, unit: Unit) -> torch.Tensor:
        found = self._targets.get(unit.name)
        if found is None:
            found = self._targets[unit.name] = self.buffer[: unit.bytes]
        return found


class SlotRing:
    """Slots of one component while it is on the device."""

    def __init__(self, transfers: Transfers, predictor: Predictor, units: dict[str, Unit]) -> None:
        self.slots: list[Slot] = []
        self.misses = 0
        self._transfers, self._device = transfers, transfers.device
        self._predictor, self._units = predictor, units

    def new_slot(self, count: int) -> Slot:
        """Allocates a slot of ``count`` bytes."""
        buffer = self._device.allocate(count)
        # Kernels enqueued earlier may still read what this memory was before.
        slot = Slot(buffer, self._device.record("compute"))
        self.slots.append(slot)
        return slot

    def enter(self, unit: Unit) -> None:
        """Before a forward: the unit reads its slot, once the copy into it is done."""
        slot = unit.slot
        try:
            self._transfers.wait(slot.ready)
        except RoostError:  # its file can't be read: the slot holds nothing
            self.forget(unit)
            raise
        unit.enter(slot.stand_ins(unit))
        self._device.begin_use(slot.buffer)

    def leave(self, unit: Unit) -> None:
        """After a forward: the slot is free when the kernels enqueued so far are done."""
        slot = unit.slot
        unit.leave()
        self._device.end_use(slot.buffer)
        slot.free = self._device.record("compute")

    def forget(self, unit: Unit) -> None:
        """The unit goes elsewhere; its slot holds nothing of use."""
        if unit.slot is not None:
            unit.slot.unit = unit.slot = None

    def issue(self, unit: Unit, slot: Slot) -> None:
        """Enqueues the unit's copy into a slot that no running block reads."""
        if slot.unit is not None:
            assert slot.unit.in_use == 0, f"slot of {slot.unit.name} is in use"
            slot.unit.slot = None
        slot.unit = None
        self._device.wait("copy", slot.free)
        assert unit.master is not None, "streamed units have masters"
        slot.ready = self._transfers.upload(slot.target(unit), unit.master)
        slot.unit, unit.slot = unit, slot

    def issue_ahead(self) -> None:
        """Copies the next block that is in no slot, if some slot's block is needed later than that one.

        The copies of residents that are used before it come first.
        """
        for ahead, name in enumerate(self._predictor.upcoming(), start=1):
            unit = self._units[name]
            if unit.fence is not None:
                fill(unit, self._transfers)
            elif unit.slot is None and unit.kind == "streamed" and unit.buffer is None:
                slot = self._victim(ahead)
                if slot is not None:
                    self.issue(unit, slot)
                return

    def fetch(self, unit: Unit) -> bool:
        """Copies a block that nobody foresaw into the slot that is needed last; False when every slot is in use."""
        self.misses += 1
        slot = self._victim()
        if slot is not None:
            self.issue(unit, slot)
        return slot is not None

    def drop(self) -> None:
        """Gives the slots back once their last copies are through."""
        for slot in self.slots:
            if slot.ready is not None:
                # A late copy must not land in memory that the compute lane has given away.
                self._transfers.outlast(slot.ready)
            if slot.unit is not None:
                slot.unit.slot = None
        for slot in self.slots:
            self._device.free(slot.buffer)
        self.slots = []

    def _victim(self, beyond: float = -1) -> Slot | None:
        """The idle slot whose block is needed last; None when all are in use or none is needed ``beyond`` that."""
        found = None
        for slot in self.slots:
            unit = slot.unit
            if unit is None:
                return slot
            if not unit.in_use:
                distance = self._predictor.distance(unit.name)
                if distance > beyond:
                    found, beyond = slot, distance
        return found
