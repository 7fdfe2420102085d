"""Values that are true on the simulated GPU, where programs take their way by them.

Kernels compute nothing, but a scheduler looks up its time step and an encoder counts its tokens on the device. So
integers, booleans and what has few elements are computed on the CPU beside the op, in the simulated device's memory,
which is host memory. The op itself is launched as ever. Other results stay whatever the memory held.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from simulated import runtime
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
FEW = 64  # elements: a schedule, not a weight


class TrueValues(TorchDispatchMode):
    """Inside the context, on this thread, integers, booleans and small tensors on the device have their values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten.nonzero.default and args[0].is_cuda:
            return _nonzero(args[0])
        if func is aten.index.Tensor and args[0].is_cuda:
            args = (args[0], _without_masks(args[1]), *args[2:])
        result = func(*args, **kwargs)
        if _matters(_tensors(result), _tensors((args, kwargs))):
            _compute(func, args, kwargs, result)
        return result


def _tensors(values: Any) -> list[torch.Tensor]:
    return [each for each in tree_flatten(values)[0] if isinstance(each, torch.Tensor)]


def _matters(outputs: list[torch.Tensor], inputs: list[torch.Tensor]) -> bool:
    if not any(each.is_cuda for each in outputs):
        return False
    whole = any(not each.is_floating_point() and not each.is_complex() for each in outputs)
    return whole or all(each.numel() <= FEW for each in (*outputs, *inputs))


def _compute(func: Any, args: Any, kwargs: Any, result: Any) -> None:
    """Runs ``func`` on the CPU over the same memory, and writes what it gives where the device's results lie."""
    with torch.no_grad():
        twins = tree_map(_on_host, (args, kwargs))
        if "device" in twins[1]:
            twins[1]["device"] = torch.device("cpu")
        try:
            computed = func(*twins[0], **twins[1])
        except (
            RuntimeError,
            NotImplementedError,
        ):  # nothing that the CPU can do, such as drawing with a CUDA generator
            return
        for theirs, ours in zip(tree_flatten(result)[0], tree_flatten(computed)[0], strict=True):
            target = _on_host(theirs)
            if isinstance(target, torch.Tensor) and theirs.is_cuda and target.data_ptr() != ours.data_ptr():
                target.copy_(ours)


def _on_host(value: Any) -> Any:
    """A CPU tensor over the memory of one on the simulated GPU; anything else as it is."""
    if not isinstance(value, torch.Tensor) or not value.is_cuda:
        return value
    storage = value.untyped_storage()
    if storage.nbytes() == 0:
        return torch.empty(value.shape, dtype=value.dtype)
    runtime().sim_settle(storage.data_ptr(), storage.nbytes())
    memory = (ctypes.c_uint8 * storage.nbytes()).from_address(storage.data_ptr())
    whole = torch.frombuffer(memory, dtype=torch.uint8, count=storage.nbytes() // value.itemsize * value.itemsize)
    return whole.view(value.dtype).as_strided(value.size(), value.stride(), value.storage_offset())


def _nonzero(mask: torch.Tensor) -> torch.Tensor:
    """As the op: it counts on the device, waits for the count, and allocates what it found."""
    torch.empty(1, dtype=torch.int64, device=mask.device).cpu()
    found = _on_host(mask).nonzero()
    result = torch.empty(found.shape, dtype=torch.int64, device=mask.device)
    if found.numel():
        _on_host(result).copy_(found)
    return result


def _without_masks(indices: Any) -> list[Any]:
    """Masks as the indices that indexing makes of them."""
    made: list[Any] = []
    for each in indices:
        is_mask = each is not None and each.is_cuda and each.dtype in (torch.bool, torch.uint8)
        made.extend(_nonzero(each).unbind(1) if is_mask else [each])
    return made
