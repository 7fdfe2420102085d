"""Counts live activations: memory that operations allocate, for as long as any tensor holds it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from roost.residency.emulated.arena import Arena

# CUDA's caching allocator hands out multiples of this.
ALLOCATION_BYTES = 512


class ActivationCount:
    """The live activations of one device, which charges each new storage to the arena until its last tensor is gone.

    Over budget the operation raises torch.OutOfMemoryError, as its allocation on a device would. Only operations inside
    ``on`` count, and not those inside ``off``, which belong to the engine; the innermost of the two decides. In
    inference mode and in compiled code torch shows larger operations whole: what those allocate inside is not seen.
    """

    def __init__(self, arena: Arena, lock: threading.RLock) -> None:
        self._arena, self._lock = arena, lock
        self._live: dict[int, _Charged] = {}  # by the storage's address in torch
        self._counting = self._watched = False

    @contextmanager
    def on(self) -> Iterator[None]:
        """While entered, what this thread's operations allocate counts."""
        before, self._counting = (self._counting, self._watched), True
        watch = nullcontext() if self._watched else _Watch(self)
        self._watched = True
        try:
            with watch:
                yield
        finally:
            self._counting, self._watched = before

    @contextmanager
    def off(self) -> Iterator[None]:
        """While entered, nothing more counts."""
        before, self._counting = self._counting, False
        try:
            yield
        finally:
            self._counting = before

    def forget(self) -> None:
        """Counts nothing any more of what is alive."""
        while self._live:
            _, charged = self._live.popitem()
            self._discharge(charged.size)

    def note(self, result: Any, args: Iterable[Any]) -> None:
        """Charges the storages of an operation's results that are neither counted already nor an argument's own."""
        if isinstance(result, torch.Tensor):
            storage = result.untyped_storage()
            key = storage._cdata
            if self._counting and key not in self._live and not _holds(args, key) and result.device.type != "meta":
                self._charge(storage, key)
        elif isinstance(result, list | tuple):
            for each in result:
                self.note(each, args)

    def _charge(self, storage: torch.UntypedStorage, key: int) -> None:
        size = -(-storage.nbytes() // ALLOCATION_BYTES) * ALLOCATION_BYTES
        with self._lock:
            self._arena.charge(size)
        charged = _Charged(storage, self._died)
        charged.key, charged.size = key, size
        self._live[key] = charged

    def _died(self, charged: _Charged) -> None:
        if self._live.get(charged.key) is charged:
            del self._live[charged.key]
            self._discharge(charged.size)

    def _discharge(self, size: int) -> None:
        with self._lock:
            self._arena.discharge(size)


class _Charged(weakref.ref[torch.UntypedStorage]):
    """A counted storage, by a reference that does not keep it alive."""

    __slots__ = ("key", "size")
    key: int
    size: int


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Sees every operation, so there is as little here as can be: some four microseconds, most of them torch's own."""

    def __init__(self, count: ActivationCount) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._note = count.note
        self._makes_nothing: dict[Any, bool] = {}  # views and operations in place, by operation

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled code runs as compiled; what it allocates inside is not seen."""
        return True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **kwargs) if kwargs else func(*args)
        makes_nothing = self._makes_nothing.get(func)
        if makes_nothing is None:
            makes_nothing = self._makes_nothing[func] = func.is_view or func._schema.is_mutable
        if not makes_nothing:
            self._note(result, args)
        return result


def _holds(values: Iterable[Any], key: int) -> bool:
    """Whether a tensor among ``values`` has the storage: operations may return what they were given."""
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.untyped_storage()._cdata == key:
                return True
        elif isinstance(value, list | tuple) and _holds(value, key):
            return True
    return False
