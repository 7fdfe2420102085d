"""A CUDA GPU as a ``Device``: PyTorch's current stream computes, one stream of its own copies."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import AbstractContextManager
from typing import Any

import torch

from roost.allocator_settings import segments_grow
from roost.errors import UsageError
from roost.facts.machine import DeviceKind, Lane, allocator_limit
from roost.option_spelling import option
from roost.residency.device.interface import Device

_log = logging.getLogger(__name__)


class CudaDevice(Device):
    """The CUDA device that is current now, on which a plan allocates ``budget_bytes``.

    PyTorch's allocator may reserve that and half of ``headroom_bytes`` until ``close``.

    Threads have a current device each, with which CUDA registers memory, and which gets a context for much less: so the
    engine works inside ``engine_work``, its own threads after ``enter_thread``, and the rest sees to it itself.
    """

    kind: DeviceKind = "cuda"

    def __init__(self, budget_bytes: int, headroom_bytes: int = 0) -> None:
        if not torch.cuda.is_available():
            raise UsageError(
                "this machine has no CUDA device that PyTorch can use; try the plan on the CPU with"
                f" {option('device', 'emulated')}."
            )
        self.device = torch.device("cuda", torch.cuda.current_device())
        self.budget_bytes = budget_bytes
        self._copy_stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._owners: dict[int, torch.Stream] = {}  # address -> the stream the allocator orders its reuse by
        self._pinned: dict[int, torch.Tensor] = {}
        self._pinning = threading.Lock()  # the staging thread registers buffers, too
        self._stalls: list[tuple[torch.Event, torch.Event]] | None = None  # around each wait of compute
        self._noticed = 0  # errors of the allocator
        self._highest = 0, 0  # allocated and reserved, before the statistics were reset for ``take_high_bytes``
        self._fraction = torch.cuda.get_per_process_memory_fraction(self.device)
        total = torch.cuda.get_device_properties(self.device).total_memory
        if not segments_grow(os.environ):
            _log.info("PyTorch's allocator has segments that don't grow: gaps between its blocks may take memory")
        limit_bytes = allocator_limit(budget_bytes, headroom_bytes)
        torch.cuda.set_per_process_memory_fraction(min(self._fraction, limit_bytes / total), self.device)

    def allocate(self, count: int) -> torch.Tensor:
        with torch.inference_mode(False):  # an inference tensor could not be written outside of that mode
            buffer = torch.empty(count, dtype=torch.uint8, device=self.device)
        self._owners[buffer.data_ptr()] = self._stream("compute")
        return buffer

    def free(self, buffer: torch.Tensor) -> None:
        """Forgets the buffer; the allocator has it again when the caller drops the last reference."""
        owner, current = self._owners.pop(buffer.data_ptr(), None), self._stream("compute")
        if owner is not None and owner != current:
            owner.wait_stream(current)  # what the current stream still reads is over before the owner reuses it

    def copy(self, target: torch.Tensor, source: torch.Tensor, lane: Lane = "copy") -> None:
        # ``data``: this is no edit of weights, and counts for no version.
        if lane == "compute":
            target.data.copy_(source, non_blocking=True)
            return
        with self._copy_stream:  # never by two threads at a time: the staging thread has the lane while it has work
            target.data.copy_(source, non_blocking=True)

    def record(self, lane: Lane) -> torch.Event:
        event = torch.Event(self.device)
        event.record(self._stream(lane))
        return event

    def wait(self, lane: Lane, event: torch.Event) -> None:
        stream = self._stream(lane)
        if lane == "copy" or self._stalls is None:
            event.wait(stream)
            return
        before = self.mark()
        event.wait(stream)
        self._stalls.append((before, self.mark()))

    def wait_host(self, event: torch.Event) -> None:
        with torch.cuda.device(self.device):
            event.synchronize()

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def enter_thread(self) -> None:
        torch.cuda.set_device(self.device)

    def engine_work(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self.device)

    def register(self, buffer: torch.Tensor) -> bool:
        with self._pinning, torch.cuda.device(self.device):
            if int(_cudart().cudaHostRegister(buffer.data_ptr(), buffer.nbytes, 0)) != 0:
                self._clear_error()
                return False
            self._pinned[buffer.data_ptr()] = buffer
        return True

    def unregister(self, buffer: torch.Tensor) -> None:
        self.synchronize()  # a copy that still runs would go on reading memory that may become anything
        with self._pinning, torch.cuda.device(self.device):
            del self._pinned[buffer.data_ptr()]
            if int(_cudart().cudaHostUnregister(buffer.data_ptr())) != 0:
                self._clear_error()

    def trim(self) -> None:
        with torch.cuda.device(self.device):
            torch.cuda.empty_cache()

    def begin_use(self, buffer: torch.Tensor) -> None:
        """The stream's order is all there is to know."""

    def end_use(self, buffer: torch.Tensor) -> None:
        """The stream's order is all there is to know."""

    def mark(self, lane: Lane = "compute") -> torch.Event:
        event = torch.Event(self.device, enable_timing=True)
        with torch.cuda.device(self.device):  # pipelines mark their steps outside of the engine's work
            event.record(self._stream(lane))
        return event

    def reached(self, mark: torch.Event) -> bool:
        with torch.cuda.device(self.device):
            return bool(mark.query())

    def seconds_between(self, earlier: torch.Event, later: torch.Event) -> float:
        with torch.cuda.device(self.device):
            return float(earlier.elapsed_time(later)) / 1000

    def watch_stalls(self) -> None:
        self._stalls = []

    @property
    def stall_s(self) -> float | None:
        if self._stalls is None:
            return None
        self.synchronize()
        return sum(self.seconds_between(before, after) for before, after in self._stalls)

    @property
    def reserved_bytes(self) -> int:
        return max(self._highest[1], self._figures("reserved_bytes")[0]["peak"])

    @property
    def refusals(self) -> int:
        return int(torch.cuda.memory_stats_as_nested_dict(self.device)["num_ooms"]) - self._noticed

    def notice(self, error: RuntimeError) -> None:
        self._noticed += isinstance(error, torch.OutOfMemoryError)

    @property
    def pinned_bytes(self) -> int:
        with self._pinning:
            return sum(buffer.nbytes for buffer in self._pinned.values())

    @property
    def used_bytes(self) -> int:
        return self._figures("allocated_bytes")[0]["current"]

    @property
    def peak_bytes(self) -> int:
        return max(self._highest[0], self._figures("allocated_bytes")[0]["peak"])

    def reset_peak(self) -> None:
        self._highest = 0, 0
        torch.cuda.reset_peak_memory_stats(self.device)

    def take_high_bytes(self) -> int:
        allocated, reserved = self._figures("allocated_bytes", "reserved_bytes")
        self._highest = max(self._highest[0], allocated["peak"]), max(self._highest[1], reserved["peak"])
        torch.cuda.reset_peak_memory_stats(self.device)
        return allocated["peak"]

    @property
    def free_bytes(self) -> int:
        free, _ = torch.cuda.mem_get_info(self.device)
        allocated, reserved = (each["current"] for each in self._figures("allocated_bytes", "reserved_bytes"))
        return max(0, min(free + reserved - allocated, self.budget_bytes - allocated))

    def close(self) -> None:
        for buffer in list(self._pinned.values()):
            self.unregister(buffer)
        torch.cuda.set_per_process_memory_fraction(self._fraction, self.device)
        self.trim()

    def _figures(self, *names: str) -> list[dict[str, int]]:
        """Of each of the allocator's figures, what it is now (``current``) and was at most (``peak``)."""
        # The flat form, which ``torch.cuda.memory_allocated`` and its like read, takes twenty times as long to make.
        found = torch.cuda.memory_stats_as_nested_dict(self.device)
        return [found[name]["all"] for name in names]

    def _stream(self, lane: Lane) -> torch.Stream:
        # Asked each time: the caller may run the pipeline on a stream of its own.
        return self._copy_stream if lane == "copy" else torch.accelerator.current_stream(self.device)

    def _clear_error(self) -> None:
        """Takes a refused registration's error out of CUDA, where the next kernel launch would find it."""
        try:
            torch.ones(1, device=self.device)
        except RuntimeError:
            return


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
