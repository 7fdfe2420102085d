"""Watches the operations of components' calls: what they allocate, and that they read no weight in host memory."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch

from roost.blocks import ALLOCATION_BYTES
from roost.pipelines.internals.of_operators import HigherOrderOperator, eager_kernel, schema_of
from roost.pipelines.internals.of_torch import TorchDispatchMode, storage_key
from roost.residency.device.emulated.arena import Arena
from roost.residency.device.emulated.weight_reads import WeightReads


class ActivationCount:
    """The live activations of one device, which charges each new storage to the arena until its last tensor is gone.

    Over budget the operation raises torch.OutOfMemoryError, as its allocation on a device would. Only operations inside
    ``on`` count, and not those inside ``off``, which belong to the engine; the innermost of the two decides. In
    inference mode and in compiled code torch shows larger operations whole: what those allocate inside is not seen.
    Each counts ``factor`` times, as with the workspaces and gaps of a real device.
    """

    def __init__(self, arena: Arena, lock: threading.RLock, factor: float = 1.0) -> None:
        self._arena, self._lock, self._factor = arena, lock, factor
        self._live: dict[int, _Charged] = {}  # by the storage's address in torch
        self._reads = WeightReads()
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

    @contextmanager
    def checking_reads(self, owner: str, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[None]:
        """While entered, an operation that counts and reads ``owner``'s ``weights`` off the device is an error."""
        with self._reads.refused(owner, ((name, each) for name, each in weights if not self._is_there(each))):
            yield

    def forget(self) -> None:
        """Counts nothing any more of what is alive; that it lies on the device stays known."""
        for charged in list(self._live.values()):
            self._discharge(charged.size)
            charged.size = 0

    def check(self, func: Any, given: Collection[int]) -> None:
        """Before an operation that reads the storages ``given``."""
        if self._counting and self._reads.concern(given):
            self._reads.check(func, given)

    def note(self, result: Any, given: Collection[int]) -> None:
        """Charges the storages of an operation's results that are neither counted already nor ``given`` to it."""
        if isinstance(result, torch.Tensor):
            storage = result.untyped_storage()
            key = storage_key(storage)
            if self._counting and key not in self._live and key not in given and result.device.type != "meta":
                self._charge(storage, key)
        elif isinstance(result, list | tuple):
            for each in result:
                self.note(each, given)

    def _is_there(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is on the device; what operations made there is."""
        return tensor in self._arena or storage_key(tensor.untyped_storage()) in self._live

    def _charge(self, storage: torch.UntypedStorage, key: int) -> None:
        size = -(-math.ceil(storage.nbytes() * self._factor) // ALLOCATION_BYTES) * ALLOCATION_BYTES
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


_Kind = Literal["view", "in place", "new", "higher order"]


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Sees every operation, so there is as little here as can be: some four microseconds, most of them torch's own."""

    supports_higher_order_operators = True  # they run as without a watch, and what they do inside is watched

    def __init__(self, count: ActivationCount) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._check, self._note = count.check, count.note
        self._kinds: dict[Any, _Kind] = {}  # by operation

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled code runs as compiled; what it allocates inside is not seen."""
        return True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kind = self._kinds.get(func)
        if kind is None:
            kind = self._kinds[func] = _kind_of(func)
        if kind == "view":
            return func(*args, **kwargs) if kwargs else func(*args)
        given = _storages((*args, *kwargs.values()) if kwargs else args)
        self._check(func, given)
        if kind == "higher order":
            return self._look_inside(func, args, kwargs or {}, given)
        result = func(*args, **kwargs) if kwargs else func(*args)
        if kind == "new":
            self._note(result, given)
        return result

    def _look_inside(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: Collection[int]) -> Any:
        """Runs a higher-order operator; eager ones are made of operations, such as flex attention's dense scores."""
        eager = eager_kernel(func)
        if eager is not None:
            with self:
                return eager(*args, **kwargs)
        result = func(*args, **kwargs)
        self._note(result, given)
        return result


def _kind_of(func: Any) -> _Kind:
    if isinstance(func, HigherOrderOperator):
        return "higher order"
    return "view" if func.is_view else "in place" if schema_of(func).is_mutable else "new"


def _storages(values: Iterable[Any]) -> list[int]:
    """The storages of the tensors among ``values``: operations may return what they were given."""
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(storage_key(value.untyped_storage()))
        elif isinstance(value, list | tuple):
            found += _storages(value)
    return found
