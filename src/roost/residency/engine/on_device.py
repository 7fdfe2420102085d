"""One component's units on the device: brought in for each stage, used block by block, and dropped."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence

import torch

from roost.blocks import TRUNK
from roost.residency.engine.buffers import fill, load, reserve, settle
from roost.residency.engine.predictor import Predictor
from roost.residency.engine.slots import SlotRing
from roost.residency.weights.rungs import Rungs
from roost.residency.weights.transfers import Transfers
from roost.residency.weights.units import Unit


class RunningBlocks:
    """The units of one component that run now, each with its weights where its forward reads them.

    ``enter`` and ``leave`` are on the way of every block's forward: what they do is counted in microseconds.
    """

    def __init__(self, units: Mapping[str, Unit], ring: SlotRing, predictor: Predictor, transfers: Transfers) -> None:
        self.device = transfers.device.device
        self.outside: set[str] = set()  # blocks whose weights are used outside their forward
        self.edited: str | None = None  # the unit whose device copy a call has edited
        self.stale = False  # the device may hold other weights than the masters do
        self._units, self._ring, self._predictor, self._transfers = units, ring, predictor, transfers
        self._in_use: set[Unit] = set()
        self._kept: set[Unit] = set()  # of those, the ones that no forward of their own runs
        self._thread: int | None = None  # the one that runs the units in use
        self._waiting = False  # for the next block to begin, before anything takes the place of the last one

    @property
    def in_call(self) -> bool:
        """Whether any of the component runs, on this thread."""
        return bool(self._in_use) and self._thread == threading.get_ident()

    def enter(self, name: str) -> None:
        """Before the forward of a block, or of what lies outside all blocks."""
        unit = self._units[name]
        unit.in_use += 1
        if unit.in_use > 1:
            return
        if not self._in_use:
            self._thread = threading.get_ident()
        self._in_use.add(unit)
        if unit.leans:
            self.keep(TRUNK)
        if unit.kind == "streamed":
            if self._waiting:
                self._waiting = False
                self._ring.issue_ahead()
            self._predictor.advance(name)
            if unit.slot is not None or self._ring.fetch(unit):
                self._ring.enter(unit)
                return
        self._enter_own(unit)

    def leave(self, name: str) -> None:
        """After a forward, also one that raised."""
        unit = self._units[name]
        if not unit.in_use:
            return
        unit.in_use -= 1
        if not unit.in_use:
            self._in_use.discard(unit)
            self._kept.discard(unit)
            streamed = unit.slot is not None
            self._leave(unit)
            if streamed:
                self._waiting = self._predictor.is_fork(name)
                if not self._waiting:
                    self._ring.issue_ahead()
            if self._kept and len(self._kept) == len(self._in_use):  # nothing runs that could read them
                self.heal()

    def keep(self, name: str) -> None:
        """Brings in a block that is used outside its forward, until the call is over."""
        unit = self._units[name]
        if unit.in_use:
            return
        if name != TRUNK:
            self.outside.add(name)
        unit.in_use = 1
        self._in_use.add(unit)
        self._kept.add(unit)
        self._enter_own(unit)

    def end(self, *, whole: bool) -> None:
        """A call is over; what the next one begins with comes back where a call that was cut short let it go."""
        self.heal()
        self._waiting = False
        self._predictor.end(whole=whole)
        if self._predictor.cut_short:
            self._ring.issue_ahead()

    def heal(self) -> None:
        """Between calls nothing is in use; what was kept, and what an interrupted call left, is put back."""
        for unit in self._in_use:
            unit.in_use = 0
            self._leave(unit)
        self._in_use.clear()
        self._kept.clear()

    def _leave(self, unit: Unit) -> None:
        if unit.slot is not None:
            self._ring.leave(unit)
        else:
            unit.leave()

    def _enter_own(self, unit: Unit) -> None:
        """Has the unit read memory of its own, now and until the release; it needs no slot any more."""
        if not unit.settled:
            self._ring.forget(unit)
            if unit.kind == "streamed":
                unit.kind = "held"
            if unit.fence is not None:
                fill(unit, self._transfers)
            elif not unit.loaded:
                load(unit, self._transfers)
            settle(unit, self._transfers)
        unit.enter()


# Bringing a component in, a unit at a time, in the order of use.


def set_kinds(units: Mapping[str, Unit], rungs: Rungs, outside: Collection[str]) -> None:
    """Decides what becomes of every block; those used ``outside`` their forward need memory of their own."""
    kinds = rungs.kinds()
    for name in rungs.names:
        unit = units[name]
        unit.kind = "held" if name in outside else kinds[name]
        if not unit.bytes:  # all of its weights are shared, so in the trunk
            unit.kind = "resident"


def acquiring(
    units: Mapping[str, Unit], order: Sequence[str], slots: int, ring: SlotRing, transfers: Transfers
) -> Iterator[bool]:
    """Allocates the trunk, the resident blocks and the slots, and starts their copies in the order of first use.

    Yields True up to the first streamed block that has no slot yet. The copies of the residents behind it are enqueued
    as the calls come to them, so that they don't hold up the block before; whoever goes on has them enqueued now.
    """
    load(units[TRUNK], transfers)
    yield True
    slot_bytes = max((unit.bytes for unit in units.values() if unit.kind == "streamed"), default=0)
    later: list[Unit] = []
    slots_taken = False
    for name in order:
        unit = units[name]
        if unit.kind == "streamed":
            slots_taken = len(ring.slots) == slots
            if not slots_taken:
                ring.issue(unit, ring.new_slot(slot_bytes))
                yield True
        elif unit.kind == "resident":
            reserve(unit, transfers)
            if slots_taken:
                later.append(unit)
            else:
                fill(unit, transfers)
            yield True
    for unit in later:
        yield False
        fill(unit, transfers)


def registered_order(module: torch.nn.Module, names: Collection[str]) -> list[str]:
    """The blocks in the order of the module's lists, mostly the order in which they run."""
    order = {name: place for place, (name, _) in enumerate(module.named_modules())}
    return sorted(names, key=lambda name: order.get(name, len(order)))
