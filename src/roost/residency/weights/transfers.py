"""Every copy between host and device that the engine makes: by which road, after what, and how many bytes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from roost.errors import RoostError
from roost.plan import PlanDocument
from roost.residency.device.interface import Device
from roost.residency.weights.host_masters import HostCopy, Master
from roost.residency.weights.staging import Stager
from roost.units import format_bytes

Watch = Callable[[HostCopy, int], AbstractContextManager[object]]


class Transfers:
    """The copy lane of one device, with the record of what deviated from the plan.

    ``pinnable_bytes`` of host memory may be pinned, and ``spare_host_bytes`` are left beside the plan's masters.
    """

    def __init__(self, device: Device, pinnable_bytes: int = 0, spare_host_bytes: int = 0) -> None:
        self.device = Stager(device)
        self.changes: list[str] = []  # where the run deviates from the plan, in words
        self.uploaded_bytes = self.downloaded_bytes = self.pinned_bytes = 0
        self._pinnable_bytes, self._spare_host_bytes = pinnable_bytes, spare_host_bytes
        self.watch: Watch | None = None  # is told of every copy, and its bytes: negative towards the host

    @classmethod
    def under(cls, plan: PlanDocument, device: Device) -> Transfers:
        """What ``plan`` lets pin, and leaves of the host memory that it was made for."""
        host = plan.machine.host
        return cls(device, host.pinnable_bytes, max(0, host.available_bytes - plan.budget.host_bytes))

    def upload(self, target: torch.Tensor, master: HostCopy) -> Any:
        """Enqueues the copy of ``master`` to ``target``; returns what ``wait`` takes."""
        self.uploaded_bytes += master.bytes
        if self.watch is None:
            self.device.copy(target, master.source)
        else:
            with self.watch(master, master.bytes):
                self.device.copy(target, master.source)
        return self.device.record("copy")

    def wait(self, ready: Any) -> None:
        """Makes the compute lane wait for an upload."""
        self.device.wait("compute", ready)

    def outlast(self, ready: Any) -> None:
        """Makes the compute lane wait for an upload whose bytes nobody wants any more; it may have failed."""
        try:
            self.device.wait("compute", ready)
        except RoostError:
            self.device.synchronize()

    def download(self, source: torch.Tensor, master: Master) -> None:
        """Fills ``master`` from the device, after all that is enqueued; blocks the host until it is there."""
        self.device.wait("copy", self.device.record("compute"))
        with self.watch(master, -master.bytes) if self.watch else nullcontext():
            self.device.copy(master.buffer, source)
        self.device.wait_host(self.device.record("copy"))
        self.downloaded_bytes += master.bytes

    def pin(self, master: Master, name: str) -> None:
        """Registers a filled master with the device; it stays pageable when the budget or the system refuses."""
        pages = master.pages
        if self.pinned_bytes + pages.nbytes > self._pinnable_bytes:
            reason = f"the plan's pinned budget of {format_bytes(self._pinnable_bytes)} is spent"
        elif not self.device.register(pages):
            reason = "the system refused to pin it"
        else:
            self.pinned_bytes += pages.nbytes
            master.tier = "pinned"
            return
        self.changes.append(f"{name}: its host copy is pageable instead of pinned, because {reason}")

    def reserve_host(self, count: int) -> bool:
        """Takes ``count`` bytes of the spare host memory, or gives them back; False when so many aren't left."""
        if count > self._spare_host_bytes:
            return False
        self._spare_host_bytes -= count
        return True

    def unpin(self, master: Master) -> None:
        if master.tier == "pinned":
            self.device.unregister(master.pages)
            self.pinned_bytes -= master.pages.nbytes
            master.tier = "pageable"

    def close(self) -> None:
        """Ends the staging thread; the device stays open."""
        self.device.close()
