"""Host masters: one flat buffer a unit, laid out once, that device copies are made from."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from roost.blocks import ALIGNMENT
from roost.errors import RoostError
from roost.facts.request import Tier
from roost.option_spelling import option
from roost.residency.weights.census import Entry
from roost.residency.weights.unpinned_sources import HostBlock, PageableBlock

_CLAIMED_BYTES = 256 * 1024
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux, which Python has no name for


class HostCopy(Protocol):
    """A unit's weights outside the device: a ``Master`` in host memory, or a ``MappedMaster`` in checkpoint files.

    An ``AbsentMaster`` has none yet.
    """

    tier: Tier
    views: list[torch.Tensor]  # one an entry, readable on the host

    @property
    def bytes(self) -> int: ...

    @property
    def source(self) -> torch.Tensor | HostBlock:
        """What the device copies from: pinned memory, or a block to be staged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Where one entry lies in its unit's buffer, and how it is seen; strides survive, so channels-last does."""

    offset: int
    extent_bytes: int
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    def view(self, buffer: torch.Tensor) -> torch.Tensor:
        flat = buffer[self.offset : self.offset + self.extent_bytes].view(self.dtype)
        return flat.as_strided(self.shape, self.stride)


@dataclass(frozen=True, slots=True)
class Layout:
    """The spans of a unit's entries, in their order, and the buffer they need."""

    spans: tuple[Span, ...]
    bytes: int

    def views(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        # A tensor made in inference mode could not be bound to a parameter outside of it.
        with torch.inference_mode(False), torch.no_grad():
            return [span.view(buffer) for span in self.spans]


def lay_out(entries: Sequence[Entry]) -> Layout:
    """Aligned places for ``entries``, one after another."""
    spans, offset = [], 0
    for entry in entries:
        tensor = entry.tensor
        extent_bytes = entry.extent * tensor.element_size()
        spans.append(
            Span(
                offset=offset,
                extent_bytes=extent_bytes,
                shape=tensor.shape,
                stride=tensor.stride(),
                dtype=tensor.dtype,
            )
        )
        offset += -(-extent_bytes // ALIGNMENT) * ALIGNMENT
    return Layout(tuple(spans), offset)


def host_memory(count: int) -> torch.Tensor:
    """``count`` bytes of whole pages of their own, which take no memory before they are written."""
    flags = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    pages = max(1, -(-count // mmap.PAGESIZE)) * mmap.PAGESIZE
    with torch.inference_mode(False):
        return torch.frombuffer(mmap.mmap(-1, pages, **flags), dtype=torch.uint8)


def _claim(memory: torch.Tensor, start: int, stop: int) -> None:
    """Takes these bytes of whole pages at once, since page by page they take a tenth longer to fill."""
    if stop - start < _CLAIMED_BYTES or sys.platform != "linux":
        return
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    address = ctypes.c_void_p(memory.data_ptr() + first)
    # Refused before Linux 5.14, and where memory is short: then they are taken as they are filled.
    ctypes.CDLL(None).madvise(address, ctypes.c_size_t(stop - first), _POPULATE_WRITE)


class Master:
    """A unit's weights in host memory. Nothing writes to them after ``fill``, save a copy back of the same bytes."""

    __slots__ = ("_memory", "buffer", "layout", "tier", "views")

    def __init__(self, layout: Layout, memory: torch.Tensor | None = None) -> None:
        self.layout = layout
        self.tier: Tier = "pageable"
        self._memory = host_memory(layout.bytes) if memory is None else memory
        self.buffer = self._memory[: layout.bytes]
        self.views = views_apart(layout, self._memory)

    @property
    def bytes(self) -> int:
        return self.layout.bytes

    @property
    def source(self) -> torch.Tensor | HostBlock:
        return self.buffer if self.tier == "pinned" else PageableBlock(self.buffer)

    @property
    def pages(self) -> torch.Tensor:
        """The whole pages behind the buffer: what is registered with the device."""
        return self._memory

    def fill(self, index: int, tensor: torch.Tensor) -> None:
        """Takes the bytes of the entry at ``index``, gaps of a strided tensor included."""
        span = self.layout.spans[index]
        _claim(self._memory, span.offset, span.offset + span.extent_bytes)
        source = tensor.detach().as_strided((span.extent_bytes // span.dtype.itemsize,), (1,))
        with torch.no_grad():
            self.buffer[span.offset : span.offset + span.extent_bytes].view(span.dtype).copy_(source)


class SharedMaster(Master):
    """A master in whole pages that other processes of the host map, too: they are filled once, and then only read.

    What this process reads and edits through ``views`` are ``private`` pages, which are the same memory as long as
    nobody edits them. From then on copies are made from there.
    """

    __slots__ = ("_private", "edited")

    def __init__(self, layout: Layout, common: torch.Tensor, private: torch.Tensor) -> None:
        super().__init__(layout, common)
        self._private = private[: layout.bytes]
        self.views = views_apart(layout, private)
        self.edited = False  # or someone holds memory of it, and may

    @property
    def source(self) -> torch.Tensor | HostBlock:
        return PageableBlock(self._private) if self.edited or self.tier != "pinned" else self.buffer


class AbsentMaster:
    """In the place of a master whose weights are loaded later: ``views`` have their shapes, and nobody filled them."""

    def __init__(self, label: str, layout: Layout, views: list[torch.Tensor]) -> None:
        self.tier: Tier = "mapped"
        self.views = views
        self._label, self._layout = label, layout

    @property
    def bytes(self) -> int:
        return self._layout.bytes

    @property
    def source(self) -> torch.Tensor | HostBlock:
        raise self.refusal()

    def refusal(self) -> RoostError:
        """The error for whoever wants to read them now."""
        return RoostError(
            f"{self._label}: its weights are read before the plan's turn for them in host memory; plan with"
            f" {option('generations', 2)}, which loads them at first."
        )


def views_apart(layout: Layout, memory: torch.Tensor) -> list[torch.Tensor]:
    """Views that share no storage object: people save weights, and PyTorch writes the whole storage of each tensor."""
    data = memory.numpy()
    views = []
    with torch.inference_mode(False), torch.no_grad():
        for span in layout.spans:
            count = span.extent_bytes // span.dtype.itemsize
            flat = torch.empty(0, dtype=span.dtype)
            if count:
                flat = torch.frombuffer(data, dtype=span.dtype, count=count, offset=span.offset)
            views.append(flat.as_strided(span.shape, span.stride))
    return views


def aligned_bytes(tensor: torch.Tensor) -> int:
    """Bytes that ``tensor`` takes in a unit's buffer."""
    return lay_out([Entry([tensor])]).bytes
