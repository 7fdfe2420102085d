"""A CUDA GPU as a ``Device``: PyTorch's current stream computes, one stream of its own copies."""

from __future__ import annotations

from typing import Any

import torch

from roost.errors import UsageError
from roost.facts.machine import DeviceKind, Lane
from roost.option_spelling import option
from roost.residency.device.interface import Device


class CudaDevice(Device):
    """The current CUDA device. A budget below the card's memory binds PyTorch's allocator until ``close``."""

    kind: DeviceKind = "cuda"

    def __init__(self, budget_bytes: int) -> None:
        if not torch.cuda.is_available():
            raise UsageError(
                "this machine has no CUDA device that PyTorch can use; try the plan on the CPU with"
                f" {option('device', 'emulated')}."
            )
        self.device = torch.device("cuda", torch.cuda.current_device())
        self.budget_bytes = budget_bytes
        self._copy_stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._owners: dict[int, torch.cuda.Stream] = {}  # address -> the stream the allocator orders its reuse by
        self._pinned: dict[int, torch.Tensor] = {}
        self._stalls: list[tuple[torch.cuda.Event, torch.cuda.Event]] | None = None  # around each wait of compute
        self._highest = 0, 0  # allocated and reserved, before the statistics were reset for ``take_high_bytes``
        self._fraction = torch.cuda.get_per_process_memory_fraction(self.device)
        total = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(self._fraction, budget_bytes / total), self.device)

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
        with torch.cuda.stream(self._stream(lane)):
            target.data.copy_(source, non_blocking=True)  # no edit of weights: it counts for no version

    def record(self, lane: Lane) -> torch.cuda.Event:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream(lane))
        return event

    def wait(self, lane: Lane, event: torch.cuda.Event) -> None:
        stream = self._stream(lane)
        if lane == "copy" or self._stalls is None:
            stream.wait_event(event)
            return
        before = self.mark()
        stream.wait_event(event)
        self._stalls.append((before, self.mark()))

    def wait_host(self, event: torch.cuda.Event) -> None:
        event.synchronize()

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def register(self, buffer: torch.Tensor) -> bool:
        if int(_cudart().cudaHostRegister(buffer.data_ptr(), buffer.nbytes, 0)) != 0:
            self._clear_error()
            return False
        self._pinned[buffer.data_ptr()] = buffer
        return True

    def unregister(self, buffer: torch.Tensor) -> None:
        self.synchronize()  # a copy that still runs would go on reading memory that may become anything
        del self._pinned[buffer.data_ptr()]
        if int(_cudart().cudaHostUnregister(buffer.data_ptr())) != 0:
            self._clear_error()

    def trim(self) -> None:
        torch.cuda.empty_cache()

    def begin_use(self, buffer: torch.Tensor) -> None:
        """The stream's order is all there is to know."""

    def end_use(self, buffer: torch.Tensor) -> None:
        """The stream's order is all there is to know."""

    def mark(self, lane: Lane = "compute") -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream(lane))
        return event

    def seconds_between(self, earlier: torch.cuda.Event, later: torch.cuda.Event) -> float:
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
        return max(self._highest[1], torch.cuda.max_memory_reserved(self.device))

    @property
    def pinned_bytes(self) -> int:
        return sum(buffer.nbytes for buffer in self._pinned.values())

    @property
    def used_bytes(self) -> int:
        return torch.cuda.memory_allocated(self.device)

    @property
    def peak_bytes(self) -> int:
        return max(self._highest[0], torch.cuda.max_memory_allocated(self.device))

    def reset_peak(self) -> None:
        self._highest = 0, 0
        torch.cuda.reset_peak_memory_stats(self.device)

    def take_high_bytes(self) -> int:
        high_bytes = torch.cuda.max_memory_allocated(self.device)
        self._highest = self.peak_bytes, self.reserved_bytes
        torch.cuda.reset_peak_memory_stats(self.device)
        return high_bytes

    @property
    def free_bytes(self) -> int:
        free, _ = torch.cuda.mem_get_info(self.device)
        cached = torch.cuda.memory_reserved(self.device) - self.used_bytes
        return max(0, min(free + cached, self.budget_bytes - self.used_bytes))

    def close(self) -> None:
        for buffer in list(self._pinned.values()):
            self.unregister(buffer)
        torch.cuda.set_per_process_memory_fraction(self._fraction, self.device)
        torch.cuda.empty_cache()

    def _stream(self, lane: Lane) -> torch.cuda.Stream:
        # Asked each time: the caller may run the pipeline on a stream of its own.
        return self._copy_stream if lane == "copy" else torch.cuda.current_stream(self.device)

    def _clear_error(self) -> None:
        """Takes a refused registration's error out of CUDA, where the next kernel launch would find it."""
        try:
            torch.ones(1, device=self.device)
        except RuntimeError:
            return


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
