"""A file's tensors as views of its mapping: nothing is read before somebody looks, and nothing is read twice."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from roost.errors import InvalidFile
from roost.facts.byte_ranges import DTYPE_NAMES
from roost.facts.weight_files import Piece, Scale, Target, WeightFile
from roost.pipelines.formats.arithmetic import decode_gguf, decode_mxfp8, decode_nvfp4, decode_scaled
from roost.pipelines.internals.of_diffusers import dequantize_bfl

_NOT_A_NUMBER = 255  # of E8M0


def check_unchanged(file: WeightFile) -> None:
    """InvalidFile where the file is no longer the one whose header was read, as far as its size tells."""
    try:
        found = os.stat(file.path)
    except OSError as error:
        raise InvalidFile(f"{file.path} can't be read: {error.strerror}.") from error
    if not stat.S_ISREG(found.st_mode) or found.st_size != file.file_bytes:
        raise InvalidFile(f"{file.path} has changed since its header was read; plan again.")


def mapped_bytes(path: str | Path, offset: int, count: int) -> torch.Tensor:
    """Bytes of a file, of which none are read yet. They can be written to, and the file can't through them."""
    return torch.from_numpy(np.memmap(path, np.uint8, "c", offset, (count,)))


class Reader:
    """Reads targets of one file. What it gives shares memory with the file's private mapping where one piece is all."""

    def __init__(self, file: WeightFile) -> None:
        check_unchanged(file)
        self._file = file

    def packed(self, target: Target) -> torch.Tensor:
        """A packed target's main tensor as its module holds it."""
        raw = self._joined([self._raw(piece) for piece in target.pieces])
        rows = sum((piece.stop - piece.start) * piece.repeat for piece in target.pieces)
        if target.method == "gguf":
            raw = raw.reshape(rows, -1)
            return raw if target.strided is None else _rows_reordered(raw, target)
        return _viewed(raw, getattr(torch, target.dtype)).reshape(rows, -1)

    def scale(self, scale: Scale) -> torch.Tensor:
        """A scale as its module holds it. Raises InvalidFile for one that is no number."""
        dtype = getattr(torch, scale.dtype)
        parts = [self._values(piece).reshape(-1).to(dtype) for piece in scale.pieces]
        value = self._joined(parts).reshape(scale.shape)
        bad = (value == _NOT_A_NUMBER) if dtype == torch.uint8 else ~torch.isfinite(value.float())
        if bad.any():
            raise InvalidFile(
                f"{self._file.path}: {scale.pieces[0].source} has values that are no numbers, so its weights have none;"
                " fetch the file again."
            )
        return value

    def value(self, target: Target) -> torch.Tensor:
        """A target that its module holds plain: decoded, reordered and cast."""
        dtype = getattr(torch, target.dtype)
        if target.identity:
            return torch.eye(*target.shape, dtype=dtype)
        value = self._decoded(target)
        if target.strided is not None:
            flat, strided = value.reshape(-1), target.strided
            value = flat.as_strided(strided.size, strided.stride, flat.storage_offset() + strided.offset).contiguous()
        if target.add:
            value = value.float() + target.add
        return _fitted(value.to(dtype), target.shape)

    def _decoded(self, target: Target) -> torch.Tensor:
        if target.method is None:
            return self._joined([self._values(piece) for piece in target.pieces])
        if target.method == "gguf":
            return self._joined([self._blocks(piece) for piece in target.pieces])
        parts = [_viewed(self._raw(piece), self._dtype(piece)) for piece in target.pieces]
        rows = sum(piece.stop - piece.start for piece in target.pieces)
        packed = self._joined(parts)
        packed = packed.reshape(rows, -1) if packed.numel() > 1 else packed.reshape(1, 1)
        scales = {scale.name: self.scale(scale) for scale in target.scales}
        return decoded(target, packed, scales)

    def _blocks(self, piece: Piece) -> torch.Tensor:
        stored = self._file.tensors[piece.source]
        return decode_gguf(self._raw(piece), stored.format, (piece.stop - piece.start, *stored.shape[1:]))

    def _values(self, piece: Piece) -> torch.Tensor:
        stored = self._file.tensors[piece.source]
        value = _viewed(self._raw(piece), self._dtype(piece))
        if not stored.shape:
            return value.repeat(piece.repeat)
        return value.reshape((piece.stop - piece.start) * piece.repeat, *stored.shape[1:])

    def _dtype(self, piece: Piece) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, DTYPE_NAMES[self._file.tensors[piece.source].format])
        return dtype

    def _raw(self, piece: Piece) -> torch.Tensor:
        """The bytes of a piece, mapped privately: the file can't be written through it."""
        stored = self._file.tensors[piece.source]
        rows = (stored.shape or (1,))[0]
        start, stop = (stored.bytes * row // rows if rows else 0 for row in (piece.start, piece.stop))
        if start == stop:
            return torch.empty(0, dtype=torch.uint8)
        try:
            raw = mapped_bytes(self._file.path, stored.offset + start, stop - start)
        except (OSError, ValueError) as error:
            raise InvalidFile(f"{self._file.path}: {stored.name} can't be mapped: {error}.") from error
        return raw if piece.repeat == 1 else raw.repeat(piece.repeat)

    @staticmethod
    def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def decoded(target: Target, packed: torch.Tensor, scales: dict[str, torch.Tensor]) -> torch.Tensor:
    """A quantised target's values, whole, before they are reordered and cast."""
    match target.method:
        case "fp8":
            return packed
        case "scaled":
            return decode_scaled(packed, scales["weight_scale"], target.rotation)
        case "mxfp8":
            return decode_mxfp8(packed, scales["weight_scale"])
        case "nvfp4":
            return decode_nvfp4(packed, scales["weight_scale"], scales["weight_scale_2"])
        case _:
            values: torch.Tensor = dequantize_bfl(packed, scales)
            return values


def _viewed(raw: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bytes as values; copied where the file doesn't align them."""
    if raw.data_ptr() % dtype.itemsize:
        raw = raw.clone()
    return raw.view(dtype)


def _rows_reordered(raw: torch.Tensor, target: Target) -> torch.Tensor:
    """Packed rows in the order that the target's view gives to those of values."""
    assert target.strided is not None
    row, packed = target.shape[1], raw.shape[1]
    *strides, _ = target.strided.stride
    size = (*target.strided.size[:-1], packed)
    stride = (*(each // row * packed for each in strides), 1)
    view = raw.as_strided(size, stride, raw.storage_offset() + target.strided.offset // row * packed)
    return view.reshape(target.shape[0], packed).contiguous()


def _fitted(value: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Without what pads a matrix to whole blocks, in the target's shape."""
    if value.numel() != math.prod(shape):
        value = value[tuple(slice(0, size) for size in shape)].contiguous()
    return value.reshape(shape)
