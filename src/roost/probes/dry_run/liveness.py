"""How many bytes of storage are alive, born in operations and dead when Python lets go of them; and what they leave."""

from __future__ import annotations

import bisect
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch

from roost.blocks import ALLOCATION_BYTES
from roost.pipelines.internals.of_torch import storage_key
from roost.units import MiB

# What PyTorch's caching allocator would take of a device that has room, for the storages of a dry run.


# As in PyTorch's CUDACachingAllocator: sizes are rounded up, small and large requests have segments of their own kinds.
_ROUND, _SMALL, _LARGE_ROUND = 512, MiB, 2 * MiB
_SMALL_SEGMENT, _MEDIUM, _MEDIUM_SEGMENT = 2 * MiB, 10 * MiB, 20 * MiB


@dataclass(eq=False, slots=True)
class Block:
    """A part of a segment; its neighbours are those that lie beside it in the same one."""

    size: int
    small: bool
    number: int
    before: Block | None = None
    after: Block | None = None
    free: bool = False


@dataclass(slots=True)
class CachingAllocator:
    """Segments are never given back: a request that no free part of one holds takes a new one.

    ``kept_bytes`` are what it has taken beyond the most that was ever in use: what smaller requests left can't hold
    larger ones. Where memory runs out PyTorch gives it back before it fails.
    """

    taken_bytes: int = 0
    used_bytes: int = 0
    most_bytes: int = 0
    _free: dict[bool, list[tuple[int, int, Block]]] = field(default_factory=lambda: {True: [], False: []})
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def kept_bytes(self) -> int:
        return self.taken_bytes - self.most_bytes

    def allocate(self, wanted: int) -> Block:
        """The smallest free part that is large enough, what is left of it cut off; else a new segment."""
        size = max(_ROUND, _up(wanted, _ROUND))
        small = size <= _SMALL
        free = self._free[small]
        at = bisect.bisect_left(free, size, key=lambda entry: entry[0])
        block = free.pop(at)[2] if at < len(free) else self._new(size, small)
        block.free = False
        rest = block.size - size
        if rest >= _ROUND if small else rest > _SMALL:
            block.size = size
            cut = Block(rest, small, next(self._numbers), before=block, after=block.after)
            if cut.after is not None:
                cut.after.before = cut
            block.after = cut
            self._add(cut)
        self.used_bytes += block.size
        self.most_bytes = max(self.most_bytes, self.used_bytes)
        return block

    def release(self, block: Block) -> None:
        """Makes the block free, one with its free neighbours."""
        self.used_bytes -= block.size
        if block.before is not None and block.before.free:
            block = self._join(self._remove(block.before), block)
        if block.after is not None and block.after.free:
            block = self._join(block, self._remove(block.after))
        self._add(block)

    def _new(self, size: int, small: bool) -> Block:
        whole = _SMALL_SEGMENT if small else _MEDIUM_SEGMENT if size < _MEDIUM else _up(size, _LARGE_ROUND)
        self.taken_bytes += whole
        return Block(whole, small, next(self._numbers))

    def _add(self, block: Block) -> None:
        block.free = True
        bisect.insort(self._free[block.small], (block.size, block.number, block))

    def _remove(self, block: Block) -> Block:
        free = self._free[block.small]
        del free[bisect.bisect_left(free, (block.size, block.number), key=lambda entry: entry[:2])]
        return block

    @staticmethod
    def _join(first: Block, second: Block) -> Block:
        first.size += second.size
        first.after = second.after
        if first.after is not None:
            first.after.before = first
        return first


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


class Liveness:
    """Counts storages that came up after ``begin``; those that were ``known`` before never count.

    Views and in-place results share a storage, so they count once.
    """

    def __init__(self, on_growth: Callable[[int], None], allocator: CachingAllocator) -> None:
        self.live_bytes = 0
        self.births = 0  # storages ever counted
        self._on_growth = on_growth
        self._allocator = allocator
        self._blocks: dict[int, Block] = {}  # by birth
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
            if allocated:
                self._blocks[self.births] = self._allocator.allocate(allocated)
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
        while self._blocks:
            self._allocator.release(self._blocks.popitem()[1])

    def _watch(self, storage: torch.UntypedStorage, allocated: int, birth: int) -> None:
        key = storage_key(storage)
        self._storages[key] = (allocated, birth, weakref.ref(storage, lambda _: self._died(key, birth)))

    def _died(self, key: int, birth: int) -> None:
        entry = self._storages.get(key)
        if entry is not None and entry[1] == birth:
            self.live_bytes -= self._storages.pop(key)[0]
            if (block := self._blocks.pop(birth, None)) is not None:
                self._allocator.release(block)


def storage_keys(tensors: Iterable[torch.Tensor]) -> set[int]:
    """Keys of the storages behind ``tensors``."""
    return {storage_key(tensor.untyped_storage()) for tensor in tensors}
