"""Bringing a component in, a unit at a time, in the order of use."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch

from roost.residency.census import TRUNK
from roost.residency.loading import load
from roost.residency.rungs import Rungs
from roost.residency.slots import SlotRing
from roost.residency.transfers import Transfers
from roost.residency.units import Unit


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
) -> Iterator[None]:
    """Starts the copies of the trunk, the resident blocks and as many streamed ones as there are slots."""
    load(units[TRUNK], transfers)
    yield
    slot_bytes = max((unit.bytes for unit in units.values() if unit.kind == "streamed"), default=0)
    for name in order:
        unit = units[name]
        if unit.kind == "resident":
            load(unit, transfers)
            yield
        elif unit.kind == "streamed" and len(ring.slots) < slots:
            ring.issue(unit, ring.new_slot(slot_bytes))
            yield


def registered_order(module: torch.nn.Module, names: Collection[str]) -> list[str]:
    """The blocks in the order of the module's lists, mostly the order in which they run."""
    order = {name: place for place, (name, _) in enumerate(module.named_modules())}
    return sorted(names, key=lambda name: order.get(name, len(order)))
