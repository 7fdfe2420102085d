"""The device that holds weights: a CUDA GPU, or a part of host memory that keeps the same books (*emulated*)."""

from __future__ import annotations

import abc

import torch

from roost.errors import UsageError
from roost.facts import DeviceKind
from roost.units import format_bytes

ALIGNMENT = 256  # both kinds start every copy on such an address: kernels round differently on misaligned weights


def aligned_bytes(tensor: torch.Tensor) -> int:
    """Device bytes that a copy of ``tensor`` takes: its memory from first to last element, rounded to 256."""
    return -(-_extent(tensor) * tensor.element_size() // ALIGNMENT) * ALIGNMENT


class Accelerator(abc.ABC):
    """One device with a byte budget. Close it when done; it is a context manager."""

    kind: DeviceKind
    device: torch.device
    budget_bytes: int

    def upload(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy on the device with the same shape, strides and dtype, in memory of its own.

        Raises torch.OutOfMemoryError when the budget has no room for it.
        """
        # A tensor made in inference mode could not be bound to a parameter outside of it.
        with torch.inference_mode(False), torch.no_grad():
            memory = tensor.detach().as_strided((_extent(tensor),), (1,))
            copy = self._allocate(memory)
            copy.copy_(memory)
            return copy.as_strided(tensor.shape, tensor.stride())

    def download(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy in host memory with the same shape, strides and dtype."""
        with torch.inference_mode(False), torch.no_grad():
            memory = tensor.detach().as_strided((_extent(tensor),), (1,))
            return torch.empty_like(memory, device="cpu").copy_(memory).as_strided(tensor.shape, tensor.stride())

    @abc.abstractmethod
    def _allocate(self, memory: torch.Tensor) -> torch.Tensor:
        """Device memory for as many elements as the one-dimensional ``memory`` has."""

    @abc.abstractmethod
    def release(self, tensor: torch.Tensor) -> None:
        """Takes the copy that ``upload`` returned off the books; the caller drops its references."""

    @property
    @abc.abstractmethod
    def used_bytes(self) -> int: ...

    @property
    @abc.abstractmethod
    def peak_bytes(self) -> int:
        """The most bytes in use at once since ``reset_peak``."""

    @abc.abstractmethod
    def reset_peak(self) -> None: ...

    @abc.abstractmethod
    def synchronize(self) -> None:
        """Waits until everything queued on the device is done."""

    @abc.abstractmethod
    def close(self) -> None:
        """Gives back what opening changed in the process."""

    def __enter__(self) -> Accelerator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EmulatedAccelerator(Accelerator):
    """Host memory in the part of a device: weights are really copied and counted, activations are not counted."""

    kind: DeviceKind = "emulated"

    def __init__(self, budget_bytes: int) -> None:
        self.device = torch.device("cpu")
        self.budget_bytes = budget_bytes
        self._live: dict[int, int] = {}  # address of a copy -> its bytes
        self._used = self._peak = 0

    def _allocate(self, memory: torch.Tensor) -> torch.Tensor:
        needed = aligned_bytes(memory)
        if self._used + needed > self.budget_bytes:
            raise torch.OutOfMemoryError(
                f"emulated device out of memory. Tried to allocate {format_bytes(needed)}; "
                f"{format_bytes(self._used)} of its budget of {format_bytes(self.budget_bytes)} is in use."
            )
        buffer = torch.empty(needed + ALIGNMENT, dtype=torch.uint8)
        start = -buffer.data_ptr() % ALIGNMENT
        copy = buffer[start : start + memory.nbytes].view(memory.dtype)
        if needed:
            self._live[copy.data_ptr()] = needed
            self._used += needed
            self._peak = max(self._peak, self._used)
        return copy

    def release(self, tensor: torch.Tensor) -> None:
        if tensor.numel():
            self._used -= self._live.pop(tensor.data_ptr())

    @property
    def used_bytes(self) -> int:
        return self._used

    @property
    def peak_bytes(self) -> int:
        return self._peak

    def reset_peak(self) -> None:
        self._peak = self._used

    def synchronize(self) -> None:
        """Nothing runs behind the caller's back here."""

    def close(self) -> None:
        """Opening changed nothing."""


class CudaAccelerator(Accelerator):
    """The current CUDA device. A budget below the card's memory binds PyTorch's allocator until ``close``."""

    kind: DeviceKind = "cuda"

    def __init__(self, budget_bytes: int) -> None:
        if not torch.cuda.is_available():
            raise UsageError(
                "this machine has no CUDA device that PyTorch can use; try the plan on the CPU with --device emulated."
            )
        self.device = torch.device("cuda", torch.cuda.current_device())
        self.budget_bytes = budget_bytes
        self._fraction = torch.cuda.get_per_process_memory_fraction(self.device)
        total = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(self._fraction, budget_bytes / total, 1.0), self.device)

    def _allocate(self, memory: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(memory, device=self.device)

    def release(self, tensor: torch.Tensor) -> None:
        """Nothing to do: the allocator sees the last reference go, in the order of the stream."""

    @property
    def used_bytes(self) -> int:
        return torch.cuda.memory_allocated(self.device)

    @property
    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self.device)

    def reset_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def close(self) -> None:
        torch.cuda.set_per_process_memory_fraction(self._fraction, self.device)
        torch.cuda.empty_cache()


def open_accelerator(device_kind: DeviceKind, budget_bytes: int) -> Accelerator:
    """The device of that kind, holding at most ``budget_bytes``. UsageError for CUDA on a machine without it."""
    return CudaAccelerator(budget_bytes) if device_kind == "cuda" else EmulatedAccelerator(budget_bytes)


def _extent(tensor: torch.Tensor) -> int:
    """Elements from the first to the last one in memory; gaps of a strided tensor included."""
    if tensor.numel() == 0:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
