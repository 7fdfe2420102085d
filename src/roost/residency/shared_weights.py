"""A component's weights in a memory file, so that processes that need the same component read it once.

The file is an anonymous one (``memfd_create``). Who finds it empty packs a loaded module into it, each unit on pages of
its own and laid out as its master; everybody else gets that very module, with the same memory behind its weights:

    | header | unit | unit | … | index |

The index holds the module as a pickle without its weights, and where they are; only processes that one parent started
have the file. The header is written last: a file whose writer died half way has none, and is filled again. So is one
whose weights were overwritten since, which a sum over each unit tells.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from roost.blocks import block_names, streamed_stacks
from roost.errors import RoostError
from roost.residency.census import Entry, take_census
from roost.residency.masters import Layout, Master, lay_out, page_bytes
from roost.residency.packing import move_in

_COMPLETE, _REFUSED = b"complete", b"refused "
_HEADER = struct.Struct("<8sQQ")  # one of these, where the index (or the reason) is, its bytes


class NotShareable(RoostError):
    """A module that can't be put into a memory file, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensor:
    """One tensor object of a module: the entry that it stands for, and what it is beside its memory."""

    unit: int
    entry: int
    parameter: bool
    requires_grad: bool
    attributes: dict[str, Any]  # what libraries write onto parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packed:
    """One unit in the file."""

    offset: int
    layout: Layout
    sum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    skeleton: bytes  # the module's pickle; its tensors are numbers
    tensors: tuple[_Tensor, ...]
    units: tuple[_Packed, ...]
    costs: Mapping[str, Any]


class SharedFile:
    """One component's memory file, by its descriptor, which stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def take(self) -> tuple[torch.nn.Module, Mapping[str, Any]] | None:
        """The module, reading the file's memory, with what its first load cost; None where the file has none.

        None too when its weights are no longer what was put there. Nothing may write to them. Raises NotShareable for
        a component that an earlier process could not put into the file.
        """
        refusal = self._described(_REFUSED)
        if refusal is not None:
            raise NotShareable(refusal.decode())
        found = self._described(_COMPLETE)
        if found is None:
            return None
        index: _Index = pickle.loads(found)
        if any(self._sum(each) != each.sum for each in index.units):
            return None
        mapping = self._map(max(each.offset + page_bytes(each.layout.bytes) for each in index.units))
        views = [each.layout.views(_region(mapping, each)) for each in index.units]
        tensors = [_tensor(each, views[each.unit][each.entry]) for each in index.tensors]
        try:
            return _Unpickler(io.BytesIO(index.skeleton), tensors).load(), index.costs
        except Exception as error:  # whatever a class does when it is made again
            raise _not_shareable(error) from error

    def pack(self, module: torch.nn.Module) -> _Filling:
        """Moves the module's weights into the file, where the module reads them from then on.

        ``Filling.publish`` then lets others take it. Raises NotShareable, with the module as it was.
        """
        try:
            units = _units_of(module)
            skeleton, tensors = _taken_apart(module, units)
        except NotShareable as error:
            self._describe(_REFUSED, str(error).encode(), mmap.PAGESIZE)
            raise
        os.pwrite(self._descriptor, bytes(_HEADER.size), 0)
        layouts, offsets, end = [lay_out(each) for each in units], [], mmap.PAGESIZE
        for layout in layouts:
            offsets.append(end)
            end += page_bytes(layout.bytes)
        if os.fstat(self._descriptor).st_size < end:  # and never shorter: others may have it mapped
            os.ftruncate(self._descriptor, end)
        mapping = self._map(end)
        packed = [_Packed(offset=at, layout=layout, sum=0) for at, layout in zip(offsets, layouts, strict=True)]
        move_in([(unit, Master(to.layout, _region(mapping, to))) for unit, to in zip(units, packed, strict=True)])
        return _Filling(self, skeleton, tensors, packed)

    def _sum(self, unit: _Packed) -> int:
        """Over the unit's words, so that any one that changed is noticed; nothing stays mapped."""
        size = page_bytes(unit.layout.bytes)
        words = torch.frombuffer(mmap.mmap(self._descriptor, size, offset=unit.offset), dtype=torch.int64)
        return int(words.sum())

    def _map(self, size: int) -> mmap.mmap:
        return mmap.mmap(self._descriptor, size)  # shared and writable: what is pinned must be both

    def _described(self, mark: bytes) -> bytes | None:
        header = os.pread(self._descriptor, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return None
        found, start, size = _HEADER.unpack(header)
        if found != mark:
            return None
        text = b""
        while len(text) < size:
            text += os.pread(self._descriptor, size - len(text), start + len(text))
        return text

    def _describe(self, mark: bytes, text: bytes, start: int) -> None:
        written = 0
        while written < len(text):
            written += os.pwrite(self._descriptor, text[written:], start + written)
        os.pwrite(self._descriptor, _HEADER.pack(mark, start, len(text)), 0)


class _Filling:
    """A file with all weights, and no header yet."""

    def __init__(
        self, file: SharedFile, skeleton: bytes, tensors: Sequence[_Tensor], packed: Sequence[_Packed]
    ) -> None:
        self._file, self._skeleton, self._tensors, self._packed = file, skeleton, tuple(tensors), packed

    def publish(self, costs: Mapping[str, Any]) -> None:
        """Writes the index, then the header; ``costs`` are for whoever takes it."""
        units = tuple(
            _Packed(offset=each.offset, layout=each.layout, sum=self._file._sum(each)) for each in self._packed
        )
        index = _Index(skeleton=self._skeleton, tensors=self._tensors, units=units, costs=dict(costs))
        end = max(each.offset + page_bytes(each.layout.bytes) for each in units)
        self._file._describe(_COMPLETE, pickle.dumps(index), end)


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, numbers: Mapping[int, int], entries: Sequence[Entry]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._numbers = numbers
        self._ranges = [(each.address, each.address + each.extent * each.tensor.element_size()) for each in entries]

    def persistent_id(self, each: Any) -> int | None:
        if not isinstance(each, torch.Tensor):
            return None
        number = self._numbers.get(id(each))
        if number is None and any(start <= each.data_ptr() < end for start, end in self._ranges):
            raise NotShareable("it keeps a view of a weight beside its weights")
        return number


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: Sequence[torch.Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, number: int) -> torch.Tensor:
        return self._tensors[number]


def _units_of(module: torch.nn.Module) -> list[list[Entry]]:
    sizes = {key: each.nbytes for key, each in module.state_dict().items() if isinstance(each, torch.Tensor)}
    try:
        units = take_census(module, block_names(streamed_stacks(sizes))).values()
        return [entries for entries in units if entries]
    except RoostError as error:
        raise NotShareable(str(error)) from error


def _taken_apart(module: torch.nn.Module, units: Sequence[Sequence[Entry]]) -> tuple[bytes, list[_Tensor]]:
    """The module without its weights, and what stands for each of them."""
    entries = [entry for unit in units for entry in unit]
    if not entries or any(entry.tensor.device.type != "cpu" for entry in entries):
        raise NotShareable("its weights are not in host memory")
    places = [
        (each, _Tensor(
            unit=number,
            entry=position,
            parameter=isinstance(each, torch.nn.Parameter),
            requires_grad=each.requires_grad,
            attributes=vars(each),
        ))
        for number, unit in enumerate(units)
        for position, entry in enumerate(unit)
        for each in entry.objects
    ]  # fmt: skip
    written = io.BytesIO()
    pickler = _Pickler(written, {id(each): number for number, (each, _) in enumerate(places)}, entries)
    try:
        pickler.dump(module)
        pickle.dumps([place for _, place in places])
    except NotShareable:
        raise
    except Exception as error:  # whatever the class keeps that can't be written down
        raise _not_shareable(error) from error
    return written.getvalue(), [place for _, place in places]


def _not_shareable(error: Exception) -> NotShareable:
    return NotShareable(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _region(mapping: mmap.mmap, unit: _Packed) -> torch.Tensor:
    """The unit's pages as a tensor with a storage of its own."""
    with torch.inference_mode(False):
        return torch.frombuffer(mapping, dtype=torch.uint8, offset=unit.offset, count=page_bytes(unit.layout.bytes))


def _tensor(described: _Tensor, view: torch.Tensor) -> torch.Tensor:
    if described.parameter:
        made: torch.Tensor = torch.nn.Parameter(view, requires_grad=described.requires_grad)
    else:
        made = view.detach().requires_grad_(described.requires_grad)
    vars(made).update(described.attributes)
    return made
