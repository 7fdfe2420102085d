"""What PyTorch's allocator is told by the environment, which it reads once, before CUDA starts.

Segments that grow let it use the gaps between its blocks: a plan that fills the budget leaves no room for those.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

_NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # the second is the older name of the same
_GROWING = "expandable_segments:True"


def allocator_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment of a process that is to use a GPU: nothing where someone has set it."""
    if sys.platform != "linux" or any(name in environment for name in _NAMES):
        return {}
    return {_NAMES[0]: _GROWING}


def segments_grow(environment: Mapping[str, str]) -> bool:
    """Whether an allocator that reads ``environment`` has segments that grow."""
    return any(_GROWING in environment.get(name, "") for name in _NAMES)
