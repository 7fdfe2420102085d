"""Counts live activations: memory that operations allocate, for as long as any tensor holds it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from roost.residency.emulated.arena import ALIGNMENT, Arena


class ActivationCount(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """While active, charges each new storage to the arena until its last tensor is gone.

    Over budget the operation raises torch.OutOfMemoryError, as its allocation on a device would.
    """

    def __init__(self, arena: Arena, lock: threading.RLock) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._arena = arena
        self._lock = lock
        self._live: dict[int, weakref.finalize[[int, int], Any]] = {}  # by the storage's address in torch

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        made = _tensors(result)
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))} if made else set()
        for tensor in made:
            self._charge(tensor, given)
        return result

    def _charge(self, tensor: torch.Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in given or key in self._live or tensor.device.type == "meta":
            return
        size = -(-storage.nbytes() // ALIGNMENT) * ALIGNMENT
        with self._lock:
            self._arena.charge(size)
        self._live[key] = weakref.finalize(storage, self._discharge, key, size)

    def _discharge(self, key: int, size: int) -> None:
        self._live.pop(key, None)
        with self._lock:
            self._arena.discharge(size)


def _tensors(tree: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_iter(tree) if isinstance(leaf, torch.Tensor)]
