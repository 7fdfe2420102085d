"""PyTorch's out-of-memory errors as Roost's, in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from roost.errors import OutOfMemory
from roost.residency.lanes import Device
from roost.units import format_bytes

_NEEDED = re.compile(r"Tried to allocate ([\d.]+ ?\w+)")


def _plan_again() -> str:
    return "plan again with a smaller --vram, size or batch"


class Shortage:
    """Memory that ran out: in which stage, what was asked for and what was in use.

    ``remedy`` gives a clause at the end, when all that could be given up was.
    """

    def __init__(self, where: str, device: Device, remedy: Callable[[], str] = _plan_again) -> None:
        self.where, self._device, self._remedy = where, device, remedy
        self._needed: str | None = None
        self._used_bytes = 0

    def note(self, error: torch.OutOfMemoryError) -> None:
        """Remembers the figures of ``error``, and not the error, which holds the failed call's tensors."""
        needed = _NEEDED.search(str(error))
        self._needed, self._used_bytes = needed[1] if needed else None, self._device.used_bytes

    def error(self, reason: str | None = None) -> OutOfMemory:
        """The error that ends the run."""
        more = f"{self._needed} more than" if self._needed else "more than"
        return OutOfMemory(
            f"{self.where}: out of memory on the {self._device.kind} device: it needs {more} the "
            f"{format_bytes(self._used_bytes)} in use now, within a budget of {format_bytes(self._device.budget_bytes)}"
            f"{f', and {reason}' if reason else ''}; {self._remedy()}."
        )


@contextmanager
def out_of_memory_in(where: str, device: Device) -> Iterator[None]:
    """Raises OutOfMemory that names ``where`` instead of torch.OutOfMemoryError."""
    shortage, short = Shortage(where, device), False
    try:
        yield
    except torch.OutOfMemoryError as error:
        shortage.note(error)
        short = True
    # Raised outside the except block: an error in flight keeps the failed call's tensors alive.
    if short:
        raise shortage.error()
