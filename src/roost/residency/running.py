"""What happens before and after each block's forward."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from roost.residency.census import TRUNK
from roost.residency.loading import load, settle
from roost.residency.predictor import Predictor
from roost.residency.slots import SlotRing
from roost.residency.transfers import Transfers
from roost.residency.units import Unit


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
        if unit.kind == "streamed":
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
            if not unit.loaded:
                load(unit, self._transfers)
            settle(unit, self._transfers)
        unit.enter()
