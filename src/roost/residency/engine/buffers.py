"""Units in device buffers of their own: allocated, copied in, waited for once, and dropped."""

from __future__ import annotations

import torch

from roost.residency.weights.host_masters import Master
from roost.residency.weights.transfers import Transfers
from roost.residency.weights.units import Unit


def load(unit: Unit, transfers: Transfers) -> None:
    """Enqueues the unit's copy into new memory; its objects keep what they read until ``settle``."""
    reserve(unit, transfers)
    fill(unit, transfers)


def reserve(unit: Unit, transfers: Transfers) -> None:
    """Allocates the unit's memory."""
    device = transfers.device
    if not unit.bytes:
        unit.buffer = torch.empty(0, dtype=torch.uint8, device=device.device)
        return
    unit.buffer = device.allocate(unit.bytes)
    # Kernels enqueued earlier may still read what this memory was before.
    unit.fence = device.record("compute")


def fill(unit: Unit, transfers: Transfers) -> None:
    """Enqueues the copy into reserved memory, unless that is done; gives the memory back where it fails."""
    if unit.fence is None:
        return
    assert unit.buffer is not None, "what is reserved has memory"
    assert unit.master is not None, "a unit without a master is on the device already"
    buffer, fence = unit.buffer, unit.fence
    unit.fence = None
    try:
        transfers.device.wait("copy", fence)
        unit.ready = transfers.upload(buffer, unit.master)
    except BaseException:
        unit.buffer = None
        transfers.device.free(buffer)
        raise


def settle(unit: Unit, transfers: Transfers) -> None:
    """Makes the compute lane wait for the copy, once, and lets it be read."""
    if unit.ready is not None:
        assert unit.buffer is not None, "a unit is loaded before it is used"
        transfers.wait(unit.ready)
        transfers.device.begin_use(unit.buffer)
    unit.settle()


def copy_back(unit: Unit, transfers: Transfers) -> None:
    """Fills the unit's master, made anew if there is none, with what is on the device."""
    if unit.buffer is None or unit.fence is not None:
        return
    if not isinstance(unit.master, Master):
        unit.master = unit.spare or Master(unit.layout)
    if unit.bytes:
        transfers.download(unit.buffer, unit.master)


def drop(unit: Unit, transfers: Transfers) -> None:
    """Gives the unit's memory back, after its copy and its last use; binds what the master has."""
    unit.bind_home()
    buffer, ready, settled, reserved = unit.buffer, unit.ready, unit.settled, unit.fence is not None
    unit.buffer = unit.ready = unit.fence = None
    unit.settled, unit.in_use = False, 0
    if buffer is None or (ready is None and not reserved):
        return
    if settled:
        transfers.device.end_use(buffer)
    elif ready is not None:
        # A late copy must not land in memory that the compute lane has given away.
        transfers.outlast(ready)
    transfers.device.free(buffer)
