"""PyTorch's out-of-memory errors as Roost's, in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from roost.errors import OutOfMemory
from roost.residency.lanes import Device
from roost.units import format_bytes

_NEEDED = re.compile(r"Tried to allocate ([\d.]+ ?\w+)")


@contextmanager
def out_of_memory_in(where: str, device: Device) -> Iterator[None]:
    """Raises OutOfMemory that names ``where`` instead of torch.OutOfMemoryError."""
    failure: str | None = None
    try:
        yield
    except torch.OutOfMemoryError as error:
        failure = str(error)
    # Raised outside the except block: an error in flight keeps the failed call's tensors alive.
    if failure is not None:
        raise OutOfMemory(_message(where, failure, device))


def _message(where: str, failure: str, device: Device) -> str:
    needed = _NEEDED.search(failure)
    more = f"{needed[1]} more than" if needed else "more than"
    in_use = format_bytes(device.used_bytes)
    return (
        f"{where}: out of memory on the {device.kind} device: it needs {more} the {in_use} in use now, within a "
        f"budget of {format_bytes(device.budget_bytes)}; plan again with a smaller --vram, size or batch."
    )
