"""Values that are true on the simulated GPU, where programs take their way by them or tests compare them.

Kernels compute nothing, but a scheduler looks up its time step and an encoder counts its tokens on the device. So what
an op gives is computed on the CPU beside it, when it is enqueued, in the simulated device's memory: host memory.
The op itself is launched as ever. Copies that the op's stream did not wait for have not arrived: then bits are wrong.
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
ATTENTION = (
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
)

SOLVERS = (aten._linalg_solve_ex.default,)  # cuSOLVER's, which would have to say how much memory it wants


class TrueValues(TorchDispatchMode):
    """Inside the context, on this thread, results on the simulated GPU have their values.

    All of them, or those that are integers, booleans or have few elements. ``missed`` names the ops that the CPU could
    not compute, such as drawing with a CUDA generator: their results are zeros if all are wanted, else anything.
    """

    def __init__(self, *, every: bool = False) -> None:
        super().__init__()
        self.missed: set[str] = set()
        self._every = every

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten.nonzero.default and args[0].is_cuda:
            return _nonzero(args[0])
        if func in SOLVERS and args[0].is_cuda:
            return _solved(func, args, kwargs)
        if func is aten._linalg_check_errors.default and args[0].is_cuda:
            return func(args[0].cpu(), *args[1:], **kwargs)
        if func is aten.index.Tensor and args[0].is_cuda:
            args = (args[0], _without_masks(args[1]), *args[2:])
        result = func(*args, **kwargs)
        if not _crosses(func, args) and self._matters(_tensors(result), _tensors((args, kwargs))):
            self._compute(func, args, kwargs, result)
        return result

    def _matters(self, outputs: list[torch.Tensor], inputs: list[torch.Tensor]) -> bool:
        if not any(each.is_cuda for each in outputs):
            return False
        whole = any(not each.is_floating_point() and not each.is_complex() for each in outputs)
        return self._every or whole or all(each.numel() <= FEW for each in (*outputs, *inputs))

    def _compute(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Runs ``func`` on the CPU over the same memory, and writes what it gives where the device's results lie."""
        with torch.no_grad():
            try:
                computed = _on_cpu(func, *tree_map(_on_host, (args, kwargs)))
            except (RuntimeError, NotImplementedError):
                self.missed.add(str(func))
                computed = tree_map(_zeros, result) if self._every else result
            for theirs, ours in zip(tree_flatten(result)[0], tree_flatten(computed)[0], strict=False):
                target = _on_host(theirs)
                if isinstance(target, torch.Tensor) and theirs.is_cuda and target.data_ptr() != ours.data_ptr():
                    target.copy_(ours)


def _crosses(func: Any, args: Any) -> bool:
    """A copy from the host, which the simulated runtime makes, and late."""
    return (func is aten.copy_.default and not args[1].is_cuda) or (
        func is aten._to_copy.default and not args[0].is_cuda
    )


def _tensors(values: Any) -> list[torch.Tensor]:
    return [each for each in tree_flatten(values)[0] if isinstance(each, torch.Tensor)]


def _zeros(value: Any) -> Any:
    return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else value


def _on_cpu(func: Any, args: Any, kwargs: Any) -> Any:
    if func in ATTENTION:  # kernels that only a GPU has
        bias = args[3] if func is not ATTENTION[0] and len(args) > 3 else None
        causal = next((each for each in args[3:] if each is True), False) and func is ATTENTION[0]
        return (aten._scaled_dot_product_attention_math(*args[:3], bias, 0.0, causal, scale=kwargs.get("scale"))[0],)
    return func(*args, **{**kwargs, **({"device": torch.device("cpu")} if "device" in kwargs else {})})


def _on_host(value: Any) -> Any:
    """A CPU tensor over the memory of one on the simulated GPU; anything else as it is."""
    if not isinstance(value, torch.Tensor) or not value.is_cuda:
        return value
    storage = value.untyped_storage()
    if storage.nbytes() == 0:
        return torch.empty(value.shape, dtype=value.dtype)
    stream = torch.cuda.current_stream(value.device).cuda_stream
    runtime().sim_settle(storage.data_ptr(), storage.nbytes(), stream)
    memory = (ctypes.c_uint8 * storage.nbytes()).from_address(storage.data_ptr())
    whole = torch.frombuffer(memory, dtype=torch.uint8, count=storage.nbytes() // value.itemsize * value.itemsize)
    return whole.view(value.dtype).as_strided(value.size(), value.stride(), value.storage_offset())


def _solved(func: Any, args: Any, kwargs: Any) -> Any:
    """On the host alone: nothing is launched, only the results are allocated."""
    computed = func(*tree_map(_on_host, args), **kwargs)
    results = tuple(
        torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device=args[0].device) for each in computed
    )
    for theirs, ours in zip(results, computed, strict=True):
        _on_host(theirs).copy_(ours)
    return results


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
