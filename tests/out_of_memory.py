"""Planted out-of-memory: in the n-th allocation of a device, or in the n-th forward of some modules."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch

from roost.residency.device.emulated import EmulatedDevice
from roost.residency.device.emulated.arena import Arena


class FailingArena(Arena):
    """Counts charges from the moment it is armed; those whose number is in ``failing`` are refused."""

    failing: frozenset[int] = frozenset()
    charges = 0

    def charge(self, size: int) -> None:
        self.charges += 1
        if self.charges in self.failing:
            raise torch.OutOfMemoryError(f"planted at {self.charges}. Tried to allocate {size} bytes")
        super().charge(size)


def failing_device(budget_bytes: int, *failing: int, count_activations: bool = False) -> EmulatedDevice:
    """An emulated device whose allocations of these numbers, counted from 1, are refused."""
    device = EmulatedDevice(budget_bytes, count_activations=count_activations)
    device._arena = FailingArena(budget_bytes)
    device._arena.failing = frozenset(failing)
    if device._activations is not None:
        device._activations._arena = device._arena
    return device


@contextlib.contextmanager
def failing_forwards(
    modules: Iterable[torch.nn.Module], *failing: int, error: RuntimeError | None = None
) -> Iterator[list[int]]:
    """Lets these of the modules' forwards, counted from 1, run out of memory, or fail with ``error``, as they begin."""
    count = [0]

    def before(*_: object) -> None:
        count[0] += 1
        if count[0] in failing:
            raise error or torch.OutOfMemoryError(f"planted at {count[0]}. Tried to allocate 20.00 MiB.")

    handles = [module.register_forward_pre_hook(before) for module in modules]
    try:
        yield count
    finally:
        for handle in handles:
            handle.remove()


def cuda_error(code: int, words: str) -> torch.AcceleratorError:
    """As PyTorch raises CUDA's own errors."""
    error = torch.AcceleratorError(f"CUDA error: {words}\nCUDA kernel errors might be asynchronously reported …")
    error.error_code = code  # type: ignore[attr-defined]  # torch sets it where it raises one
    return error
