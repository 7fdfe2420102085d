"""How many bytes of storage are alive: born in operations, dead when Python lets go of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator

import torch

from roost.blocks import ALLOCATION_BYTES
from roost.pipelines.internals.of_torch import storage_key


class Liveness:
    """Counts storages that came up after ``begin``; those that were ``known`` before never count.

    Views and in-place results share a storage, so they count once.
    """

    def __init__(self, on_growth: Callable[[int], None]) -> None:
        self.live_bytes = 0
        self.births = 0  # storages ever counted
        self._on_growth = on_growth
        self._storages: dict[int, tuple[int, int, weakref.ref[torch.UntypedStorage]]] = {}

    def know(self, tensor: torch.Tensor) -> None:
        """Registers a weight, an input or a tensor from elsewhere: alive, but not counted."""
        storage = tensor.untyped_storage()
        if storage_key(storage) not in self._storages:
            self._watch(storage, 0, 0)

    def note(self, tensor: torch.Tensor) -> None:
        """Counts the storage of a result, unless it is known already."""
        storage = tensor.untyped_storage()
        if storage_key(storage) not in self._storages:
            allocated = -(-storage.nbytes() // ALLOCATION_BYTES) * ALLOCATION_BYTES
            self.births += 1
            self._watch(storage, allocated, self.births)
            self.live_bytes += allocated
            self._on_growth(self.live_bytes)

    def birth(self, tensor: torch.Tensor) -> int:
        """When the storage was counted, from 1; 0 when it never was."""
        entry = self._storages.get(storage_key(tensor.untyped_storage()))
        return entry[1] if entry else 0

    def born_since(self, births: int) -> Iterator[int]:
        """Keys of the living storages that were counted after the first ``births`` ones."""
        return (key for key, entry in self._storages.items() if entry[1] > births)

    def forget(self) -> None:
        """Ends counting; storages that still live are nobody's any more."""
        self._storages.clear()
        self.live_bytes = 0

    def _watch(self, storage: torch.UntypedStorage, allocated: int, birth: int) -> None:
        key = storage_key(storage)
        self._storages[key] = (allocated, birth, weakref.ref(storage, lambda _: self._died(key, birth)))

    def _died(self, key: int, birth: int) -> None:
        entry = self._storages.get(key)
        if entry is not None and entry[1] == birth:
            self.live_bytes -= self._storages.pop(key)[0]


def storage_keys(tensors: Iterable[torch.Tensor]) -> set[int]:
    """Keys of the storages behind ``tensors``."""
    return {storage_key(tensor.untyped_storage()) for tensor in tensors}
