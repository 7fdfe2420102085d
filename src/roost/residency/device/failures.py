"""What errors of a device mean: memory that ran out, whoever says so, or a device that is lost to this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from roost.errors import DeviceLost
from roost.foreign_words import tell_of_device_memory

_MEMORY_ALLOCATION = 2  # cudaErrorMemoryAllocation
# CUDA's errors of which its documentation says that the process must be ended: illegal addresses, asserts, timeouts,
# faults of the hardware. Whatever is asked of the device afterwards fails alike.
_LOST = frozenset({700, 702, 710, *range(714, 720)})


def ran_out(error: BaseException) -> bool:
    """Whether device memory ran out: in PyTorch's allocator, in CUDA, or in a library that allocates by itself."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if isinstance(error, torch.AcceleratorError):
        return _code(error) == _MEMORY_ALLOCATION
    return isinstance(error, RuntimeError) and tell_of_device_memory(error)


@contextmanager
def naming_loss(where: str) -> Iterator[None]:
    """Raises DeviceLost, which names ``where``, instead of errors that leave no use of the device to this process."""
    try:
        yield
    except torch.AcceleratorError as error:
        if _code(error) not in _LOST:
            raise
        raise _device_lost(where, error) from error


def _device_lost(where: str, error: torch.AcceleratorError) -> DeviceLost:
    said = str(error).partition("\n")[0].rstrip(".")
    return DeviceLost(
        f"{where}: the GPU failed ({said}), and this process can't use it any more, so nothing is tried again;"
        " start anew, with CUDA_LAUNCH_BLOCKING=1 to see which operation it was."
    )


def _code(error: torch.AcceleratorError) -> int | None:
    code: int | None = getattr(error, "error_code", None)  # torch sets it where it raises the error itself
    return code
