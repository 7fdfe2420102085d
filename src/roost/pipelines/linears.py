"""The weights that can be stored in 8 bits: those of plain linear layers inside a component's blocks."""

from __future__ import annotations

from collections.abc import Iterator

import torch

_HALVES = (torch.bfloat16, torch.float16)


def castable_linears(block: torch.nn.Module) -> Iterator[torch.nn.Linear]:
    """The block's linear layers in half precision whose forward is PyTorch's own.

    What a model keeps in float32, and layers of a library's own class, stay as they are.
    """
    for part in block.modules():
        if type(part).forward is torch.nn.Linear.forward and part.weight.dtype in _HALVES:
            assert isinstance(part, torch.nn.Linear)
            yield part
