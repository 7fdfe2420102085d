"""Emulated device memory: aligned allocations on a byte budget, used again at once like a caching allocator's."""

from __future__ import annotations

from collections import defaultdict

import torch

from roost.blocks import ALIGNMENT
from roost.pipelines.internals.of_torch import without_modes
from roost.residency.device.interface import EmulatedOutOfMemory
from roost.units import format_bytes

POISON = 0xFF  # NaN as float32, float16 and bfloat16


class Arena:
    """Books of one device: weights in buffers of its own, activations by their size alone."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = self.peak_bytes = self._high_bytes = 0
        self._live: dict[int, torch.Tensor] = {}  # address of a storage -> all of its aligned bytes
        self._idle: dict[int, list[torch.Tensor]] = defaultdict(list)  # size -> freed memory
        self._idle_bytes = 0

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._live

    def take(self, count: int) -> torch.Tensor:
        """``count`` bytes as uint8; torch.OutOfMemoryError beyond the budget."""
        size = -(-count // ALIGNMENT) * ALIGNMENT
        self.charge(size)
        if size == 0:
            return torch.empty(0, dtype=torch.uint8)
        memory = self._recycled(size) if self._idle[size] else self._fresh(size)
        self._live[memory.untyped_storage().data_ptr()] = memory
        return memory[:count]

    def give_back(self, buffer: torch.Tensor) -> torch.Tensor:
        """Takes an allocation off the books; returns all of its memory, which the next ``take`` may hand out."""
        memory = self._live.pop(buffer.untyped_storage().data_ptr(), None)
        if memory is None:
            raise RuntimeError(f"{format_bytes(buffer.nbytes)} freed that this emulated device does not hold")
        self.discharge(memory.nbytes)
        self._idle[memory.nbytes].append(memory)
        self._idle_bytes += memory.nbytes
        return memory

    def charge(self, size: int) -> None:
        """Counts bytes as used; torch.OutOfMemoryError beyond the budget."""
        if self.used_bytes + size > self.budget_bytes:
            needed, free = format_bytes(size), format_bytes(self.budget_bytes - self.used_bytes)
            raise EmulatedOutOfMemory(
                f"emulated device out of memory: needs {needed}, has {free} of {format_bytes(self.budget_bytes)}.", size
            )
        self.used_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        self._high_bytes = max(self._high_bytes, self.used_bytes)

    def discharge(self, size: int) -> None:
        """Counts bytes as free again."""
        self.used_bytes -= size

    def take_high_bytes(self) -> int:
        """Most used since the call before."""
        high_bytes, self._high_bytes = self._high_bytes, self.used_bytes
        return high_bytes

    def trim(self) -> None:
        """Forgets freed memory, which goes back to the host."""
        self._idle.clear()
        self._idle_bytes = 0

    def _recycled(self, size: int) -> torch.Tensor:
        self._idle_bytes -= size
        return self._idle[size].pop()

    def _fresh(self, size: int) -> torch.Tensor:
        if self.used_bytes + self._idle_bytes > self.budget_bytes:
            self.trim()  # host memory behind the device stays within the device's budget
        # An inference tensor could not be written outside of that mode; and this is the device's memory, no activation.
        with torch.inference_mode(False), without_modes():
            memory = torch.empty(size + ALIGNMENT, dtype=torch.uint8)
        start = -memory.data_ptr() % ALIGNMENT
        return memory[start : start + size]
