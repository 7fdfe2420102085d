"""Units in device buffers of their own: copied in, waited for once, and dropped."""

from __future__ import annotations

import torch

from roost.residency.masters import Master
from roost.residency.transfers import Transfers
from roost.residency.units import Unit


def load(unit: Unit, transfers: Transfers) -> None:
    """Enqueues the unit's copy into new memory; its objects keep what they read until ``settle``."""
    device = transfers.device
    if not unit.bytes:
        unit.buffer = torch.empty(0, dtype=torch.uint8, device=device.device)
        return
    assert unit.master is not None, "a unit without a master is on the device already"
    buffer = device.allocate(unit.bytes)
    try:
        # Kernels enqueued earlier may still read what this memory was before.
        device.wait("copy", device.record("compute"))
        unit.ready = transfers.upload(buffer, unit.master)
    except BaseException:
        device.free(buffer)
        raise
    unit.buffer = buffer


def settle(unit: Unit, transfers: Transfers) -> None:
    """Makes the compute lane wait for the copy, once, and lets it be read."""
    if unit.ready is not None:
        assert unit.buffer is not None, "a unit is loaded before it is used"
        transfers.wait(unit.ready)
        transfers.device.begin_use(unit.buffer)
    unit.settle()


def copy_back(unit: Unit, transfers: Transfers) -> None:
    """Fills the unit's master, made anew if there is none, with what is on the device."""
    if unit.buffer is None:
        return
    if not isinstance(unit.master, Master):
        unit.master = unit.spare or Master(unit.layout)
    if unit.bytes:
        transfers.download(unit.buffer, unit.master)


def drop(unit: Unit, transfers: Transfers) -> None:
    """Gives the unit's memory back, after its copy and its last use; binds what the master has."""
    unit.bind_home()
    buffer, ready, settled = unit.buffer, unit.ready, unit.settled
    unit.buffer = unit.ready = None
    unit.settled, unit.in_use = False, 0
    if buffer is None or ready is None:
        return
    if settled:
        transfers.device.end_use(buffer)
    else:
        # A late copy must not land in memory that the compute lane has given away.
        transfers.outlast(ready)
    transfers.device.free(buffer)
