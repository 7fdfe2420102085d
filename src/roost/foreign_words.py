"""What is known of other libraries' failures by their words alone, because they have no type and no code.

Only words that Roost doesn't write are looked for, and here only: other words cost a hint or an exit code, no result.
"""

from __future__ import annotations

import re

# The dynamic linker's (OSError, ImportError) and PyTorch's (RuntimeError) where the system refuses host memory.
_REFUSED_MEMORY = ("failed to map segment", "can't allocate memory")

# Of libraries beside PyTorch's allocator that take device memory, as PyTorch passes their statuses on (RuntimeError).
_DEVICE_MEMORY = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
    "CUDA driver error: out of memory",
)

_ALLOCATION = re.compile(r"Tried to allocate ([\d.]+ ?\w+)")


def tell_of_refused_memory(error: BaseException) -> bool:
    """Whether the error's words are those of a refusal of host memory."""
    return any(each in str(error) for each in _REFUSED_MEMORY)


def tell_of_device_memory(error: RuntimeError) -> bool:
    """Whether the error's words are those of a library that found no device memory."""
    return any(each in str(error) for each in _DEVICE_MEMORY)


def told_allocation(error: RuntimeError) -> str | None:
    """What PyTorch's allocator was asked for, as it says it: ``20.00 MiB``."""
    found = _ALLOCATION.search(str(error))
    return found[1] if found else None


def tell_of_tiling(error: NotImplementedError) -> bool:
    """Whether a VAE says that it decodes in tiles alone: diffusers' HunyuanVideo and others."""
    return "tiling" in str(error)
