"""Weights in host memory that is not pinned, or still in the checkpoint's files, as something to read pieces of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from roost.errors import RoostError
from roost.shell_quoting import shown_path


class HostBlock(Protocol):
    """Bytes that can be read from any offset, on any thread, without the host memory being pinned."""

    @property
    def size(self) -> int: ...

    def read_into(self, buffer: torch.Tensor, offset: int) -> None:
        """Fills ``buffer`` (uint8) with the bytes from ``offset`` on."""


@dataclass(frozen=True, slots=True)
class PageableBlock:
    """A flat uint8 tensor in ordinary host memory."""

    memory: torch.Tensor

    @property
    def size(self) -> int:
        return self.memory.nbytes

    def read_into(self, buffer: torch.Tensor, offset: int) -> None:
        buffer.copy_(self.memory[offset : offset + buffer.nbytes])


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePiece:
    """``size`` bytes of a file, and where they belong in the block."""

    path: Path
    file_offset: int
    offset: int
    size: int


class FileBlock:
    """Pieces of checkpoint files in one layout, and some at offsets in memory; bytes between them are left as they are.

    A file that is gone, shorter than it was, or not the one that was there when the block was made, is a RoostError.
    """

    def __init__(self, pieces: Sequence[FilePiece], size: int, kept: Sequence[tuple[int, torch.Tensor]] = ()) -> None:
        self._pieces = tuple(sorted(pieces, key=lambda piece: piece.offset))
        self._size, self._kept = size, tuple(kept)
        self._stamps = {path: stamp_of(path) for path in {piece.path for piece in pieces}}

    @property
    def size(self) -> int:
        return self._size

    def read_into(self, buffer: torch.Tensor, offset: int) -> None:
        for path, file_offset, start, end in self._cut(offset, offset + buffer.nbytes):
            self._read(path, file_offset, buffer[start - offset : end - offset])
        for start, memory in self._kept:
            first, last = max(start, offset), min(start + memory.nbytes, offset + buffer.nbytes)
            if first < last:
                buffer[first - offset : last - offset] = memory[first - start : last - start]

    def _cut(self, start: int, end: int) -> Iterator[tuple[Path, int, int, int]]:
        """The parts of pieces between ``start`` and ``end``."""
        for piece in self._pieces:
            first, last = max(start, piece.offset), min(end, piece.offset + piece.size)
            if first < last:
                yield piece.path, piece.file_offset + first - piece.offset, first, last

    def _read(self, path: Path, file_offset: int, target: torch.Tensor) -> None:
        view = target.numpy().data
        try:
            # Opened for each read: nothing stays open, and a file replaced behind our back is noticed.
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if _stamp(os.fstat(descriptor)) != self._stamps[path]:
                    raise unusable(path, "has changed since the model was loaded")
                done = 0
                while done < len(view):
                    count = os.preadv(descriptor, [view[done:]], file_offset + done)
                    if count == 0:
                        raise unusable(path, f"ends before byte {file_offset + len(view)}")
                    done += count
            finally:
                os.close(descriptor)
        except OSError as error:
            raise unusable(path, f"can't be read ({error.strerror})") from error


def stamp_of(path: Path) -> tuple[int, ...]:
    """What tells a file from one that has taken its place, or was written to since; RoostError when it is gone."""
    try:
        return _stamp(os.stat(path))
    except OSError as error:
        raise unusable(path, f"can't be read ({error.strerror})") from error


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def unusable(path: Path, problem: str) -> RoostError:
    """The error for a file that weights are still to be read from."""
    return RoostError(
        f"{path.name!r} {problem}, and its weights are read from it while the model runs: restore {shown_path(path)} "
        "and start again, or plan with host memory for its weights."
    )
