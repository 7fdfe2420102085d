"""What happens before and after each block's forward."""

from __future__ import annotations

from collections.abc import Mapping

from roost.residency.first_uses import FirstUses
from roost.residency.loading import load, settle
from roost.residency.predictor import Predictor
from roost.residency.slots import SlotRing
from roost.residency.transfers import Transfers
from roost.residency.units import Unit


class RunningBlocks:
    """The blocks of one component that run now, each with its weights where its forward reads them.

    ``enter`` and ``leave`` are on the way of every block's forward: what they do is counted in microseconds.
    """

    def __init__(self, units: Mapping[str, Unit], ring: SlotRing, predictor: Predictor, transfers: Transfers) -> None:
        self.first_uses = FirstUses()
        self.outside: set[str] = set()  # blocks whose weights are used outside their forward
        self._units, self._ring, self._predictor, self._transfers = units, ring, predictor, transfers
        self._in_use: set[Unit] = set()

    def enter(self, name: str) -> None:
        """Before a block's forward."""
        unit = self._units[name]
        unit.in_use += 1
        if unit.in_use > 1:
            return
        self._in_use.add(unit)
        if self.first_uses.watching:
            self.first_uses.ran(name)
        if unit.kind == "streamed":
            self._predictor.advance(name)
            if unit.slot is not None or self._ring.fetch(unit):
                self._ring.enter(unit)
                return
        if not unit.settled:
            self._load_own(unit)

    def leave(self, name: str) -> None:
        """After a block's forward, also one that raised."""
        unit = self._units[name]
        if not unit.in_use:
            return
        unit.in_use -= 1
        if not unit.in_use:
            self._in_use.discard(unit)
            if unit.slot is not None:
                self._ring.leave(unit)
                self._ring.issue_ahead()

    def keep(self, name: str) -> None:
        """Loads a block that is used outside its forward, until the component's release."""
        unit = self._units[name]
        if unit.in_use or unit.settled:
            return
        self.outside.add(name)
        self._load_own(unit)

    def heal(self) -> None:
        """Between calls no block is in use; an interrupted call may have left some."""
        for unit in self._in_use:
            unit.in_use = 0
            if unit.slot is not None:
                self._ring.leave(unit)
        self._in_use.clear()

    def _load_own(self, unit: Unit) -> None:
        """Brings a unit in, for use now and until the release; it needs no slot any more."""
        self._ring.forget(unit)
        if unit.kind == "streamed":
            unit.kind = "held"
        if not unit.loaded:
            load(unit, self._transfers)
        settle(unit, self._transfers)
