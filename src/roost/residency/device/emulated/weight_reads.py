"""Weights that an operation must not read: those in host memory, and those that are nowhere but in their masters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from roost.errors import RoostError
from roost.option_spelling import option
from roost.pipelines.internals.of_operators import COPIES, HigherOrderOperator
from roost.pipelines.internals.of_torch import storage_key

# Operations that look at a tensor's shape and dtype alone.
_READ_NOTHING = frozenset(
    (
        *("new_empty", "new_empty_strided", "new_zeros", "new_ones", "new_full"),
        *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like"),
    )
)
# Operations that take what lies in host memory also where the other side is on a device.
_COPIES = COPIES | {"copy_"}


class _OffDevice(NamedTuple):
    """A weight that is not on the device; ``absent`` where nothing stands for it but a value that no weight has."""

    owner: str
    name: str
    absent: bool
    storage: torch.UntypedStorage  # held, so that its address is nobody else's


class WeightReads:
    """Refuses operations on weights that are not on the device, where CUDA would, or would compute with nothing.

    Weights are known by their storages, so that views of them are known as well.
    """

    def __init__(self) -> None:
        self._off_device: dict[int, _OffDevice] = {}  # by the storage's address in torch

    @contextmanager
    def refused(self, owner: str, off_device: Iterable[tuple[str, torch.Tensor]]) -> Iterator[None]:
        """While entered, ``owner``'s weights that are ``off_device`` are looked after."""
        before = self._off_device
        self._off_device = {**before, **{storage_key(each.storage): each for each in _find(owner, off_device)}}
        try:
            yield
        finally:
            self._off_device = before

    def concern(self, given: Collection[int]) -> bool:
        """Whether a storage that an operation is given is such a weight's."""
        return not self._off_device.keys().isdisjoint(given)

    def check(self, func: Any, given: Collection[int]) -> None:
        """RoostError for an operation on such weights, unless it reads no values or is a copy from host memory."""
        higher = isinstance(func, HigherOrderOperator)
        operation = None if higher else func.overloadpacket.__name__
        if operation in _READ_NOTHING:
            return
        for found in (self._off_device[key] for key in given if key in self._off_device):
            if found.absent:
                raise RoostError(
                    f"{found.owner}.{found.name} was read while it is not on the device, outside of its block's own "
                    f"forward; plan the component with {option('set', f'{found.owner}=resident')}."
                )
            if operation not in _COPIES:
                raise RoostError(
                    f"{found.owner}.{found.name} is in host memory, where a GPU can't compute with it: it was put "
                    "there while a plan holds the component; detach the plan, change the model and attach again."
                )


def _find(owner: str, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[_OffDevice]:
    for name, tensor in weights:
        absent = tensor.numel() > 1 and not any(tensor.stride())
        if absent or (tensor.ndim and tensor.numel()):  # a number may lie in host memory: CUDA takes it along
            yield _OffDevice(owner, name, absent, tensor.untyped_storage())
