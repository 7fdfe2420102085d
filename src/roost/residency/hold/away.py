"""Components that another process has: modules that look like theirs to a pipeline, and have no weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from roost.facts.model import Kind
from roost.pipelines.internals.of_accelerate import HOOK
from roost.pipelines.internals.of_torch import CONVERT, buffers_of, children_of, parameters_of
from roost.residency.weights.foreign import ExecutionDevice
from roost.residency.weights.packing import nothing_like


class AwayComponent:
    """A component's ``module`` with its configs, shapes and dtypes, on ``device``; its weights take no memory.

    A pipeline may convert it, as it would the real one. Calls of it must be routed elsewhere.
    """

    def __init__(self, name: str, module: torch.nn.Module, kind: Kind, device: torch.device) -> None:
        self.name, self.module, self.kind = name, module, kind
        for part in module.modules():
            _convert(part, device, lambda tensor: tensor)
            vars(part)[CONVERT] = functools.partial(_converted, part, device)
        vars(module)[HOOK] = ExecutionDevice(device)

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of all its floating weights; None where they have several."""
        found = {each.dtype for each in self.module.parameters() if each.is_floating_point()}
        return found.pop() if len(found) == 1 else None


def _converted(
    part: torch.nn.Module, device: torch.device, change: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True
) -> torch.nn.Module:
    """In the place of a module's own conversion, which would give every weight memory."""
    for child in children_of(part).values() if recurse else ():
        if child is not None:
            _converted(child, device, change)
    _convert(part, device, change)
    return part


def _convert(part: torch.nn.Module, device: torch.device, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    for table, wrap in ((parameters_of(part), _parameter), (buffers_of(part), lambda tensor: tensor)):
        for name, tensor in table.items():
            if tensor is not None:
                dtype = change(torch.empty((), dtype=tensor.dtype)).dtype
                shape: Any = torch.empty(tensor.shape, dtype=dtype, device="meta")
                table[name] = wrap(nothing_like(shape, device))


def _parameter(tensor: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor, requires_grad=False)
