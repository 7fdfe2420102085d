"""What is known of other libraries' failures by their words alone, because they have no type and no code.

Only words that Roost doesn't write are looked for, and here only: other words cost a hint or an exit code, no result.
"""

from __future__ import annotations

# The dynamic linker's (OSError, ImportError) and PyTorch's (RuntimeError) where the system refuses host memory.
_REFUSED_MEMORY = ("failed to map segment", "can't allocate memory")


def tell_of_refused_memory(error: BaseException) -> bool:
    """Whether the error's words are those of a refusal of host memory."""
    return any(each in str(error) for each in _REFUSED_MEMORY)


def tell_of_tiling(error: NotImplementedError) -> bool:
    """Whether a VAE says that it decodes in tiles alone: diffusers' HunyuanVideo and others."""
    return "tiling" in str(error)
