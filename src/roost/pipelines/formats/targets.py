"""From a tensor's provenance to what its module holds: packed or decoded, and the scales that go with its rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch

from roost.errors import InvalidFile
from roost.facts.weight_files import Piece, Scale, StoredTensor, Strided, Target, WeightFile
from roost.pipelines.formats.conversions.recording import Made
from roost.pipelines.formats.quantised import Quantised, block_of
from roost.pipelines.internals.of_diffusers import gguf_blocks

# Comfy pads matrices to whole blocks of both dimensions.
_PADDED = {"nvfp4": 16, "mxfp8": 32}
_TILE_ROWS = 128  # of swizzled scales, which can only be cut there
_SCALE, _SCALE_2 = "weight_scale", "weight_scale_2"
_HELD = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "I8": "int8", "U8": "uint8"}


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor of the plain module: its shape, the dtype it is held in, and whether a packed linear can stand there."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    linear: bool


@dataclass(frozen=True, slots=True)
class Assembly:
    """What makes the targets of one file; ``quantised`` by the file's own names."""

    file: WeightFile
    quantised: Mapping[str, Quantised]

    def target(self, place: Place, made: Made, add: float = 0.0) -> Target:
        """The target at ``place``. Raises InvalidFile where shapes differ, or scales can't follow the rows."""
        kinds = {piece.source: self.quantised.get(piece.source) for piece in made.pieces}
        self._check_shape(place, made, kinds)
        if all(each is None for each in kinds.values()):
            return self._plain(place, made, add)
        found = [each for each in kinds.values() if each is not None]
        if len(found) < len(kinds) or len({(each.method, each.rotation) for each in found}) > 1:
            self._refuse(place, "is joined of differently quantised tensors")
        self._check_blocks(place, made.pieces)
        formats = {each.weight.format for each in found}
        if len(formats) > 1 and found[0].method != "gguf":
            self._refuse(place, f"is joined of tensors of {' and '.join(sorted(formats))}")
        method = found[0].method
        alone = method == "gguf" and made.strided is not None and keeps_rows(made.strided, self._row(made))
        whole = len(formats) == 1 and (method != "gguf" or self._row(made) % gguf_blocks(*formats)[1] == 0)
        packed = place.linear and not add and whole and (made.strided is None or alone)
        return self._quantised(place, made, found, add, packed=packed)

    def _quantised(self, place: Place, made: Made, found: list[Quantised], add: float, *, packed: bool) -> Target:
        method = found[0].method
        scales = self._scales(place, made.pieces)
        if scales and made.strided is not None and any(math.prod(each.shape) != 1 for each in scales):
            self._refuse(place, "is reordered, and its scales can't follow")
        size = math.prod(place.shape) * place.dtype.itemsize
        dtype = _word(place.dtype)
        if packed:
            size = sum(self._bytes(piece) for piece in made.pieces) + sum(map(_scale_bytes, scales))
            dtype = "uint8" if method == "gguf" else _HELD[found[0].weight.format]
        return Target(
            name=place.name,
            shape=place.shape,
            dtype=dtype,
            bytes=size,
            format=" and ".join(sorted({each.weight.format for each in found})),
            pieces=made.pieces,
            strided=made.strided,
            add=add,
            method=method,
            packed=packed,
            scales=scales,
            rotation=found[0].rotation,
        )

    def _plain(self, place: Place, made: Made, add: float) -> Target:
        return Target(
            name=place.name,
            shape=place.shape,
            dtype=_word(place.dtype),
            bytes=math.prod(place.shape) * place.dtype.itemsize,
            format=" and ".join(sorted({self.file.tensors[piece.source].format for piece in made.pieces})),
            pieces=made.pieces,
            strided=made.strided,
            add=add,
        )

    # Scales

    def _scales(self, place: Place, pieces: Sequence[Piece]) -> tuple[Scale, ...]:
        method = self._of(pieces[0]).method
        if method in ("gguf", "fp8"):
            return ()
        if method == "scaled":
            return (self._scale(place, _SCALE, pieces),)
        if method == "bfl_fp8r":
            return (self._rows(_SCALE, pieces, flat=True),)
        if method == "bfl_nvfp4":
            singles = tuple(self._single(place, name, pieces) for name in (_SCALE_2, "input_scale"))
            return (self._cut(place, _SCALE, pieces), *singles)
        first = self._tiled(place, pieces)
        return (first,) if method == "mxfp8" else (first, self._tensor_or_rows(_SCALE_2, pieces))

    def _scale(self, place: Place, name: str, pieces: Sequence[Piece]) -> Scale:
        """The scale of a tensor stays one where it has one source; of several it becomes one for each row."""
        kinds = {self._of(each).kind for each in pieces}
        if kinds == {"block"}:
            return self._cut(place, name, pieces)
        if "block" in kinds:
            self._refuse(place, "is joined of tensors with scales of blocks and of others")
        return self._tensor_or_rows(name, pieces)

    def _tensor_or_rows(self, name: str, pieces: Sequence[Piece]) -> Scale:
        scale = self._of(pieces[0]).scales[name]
        if len({each.source for each in pieces}) == 1 and math.prod(scale.shape) == 1:
            return Scale(name=name, shape=(), dtype="float32", pieces=(_whole(scale),))
        return self._rows(name, pieces)

    def _rows(self, name: str, pieces: Sequence[Piece], *, flat: bool = False) -> Scale:
        rows = sum(piece.stop - piece.start for piece in pieces)
        found = []
        for piece in pieces:
            scale = self._of(piece).scales[name]
            if math.prod(scale.shape) == 1:
                found.append(Piece(source=scale.name, start=0, stop=1, repeat=piece.stop - piece.start))
            else:
                found.append(Piece(source=scale.name, start=piece.start, stop=piece.stop))
        return Scale(name=name, shape=(rows,) if flat else (rows, 1), dtype="float32", pieces=tuple(found))

    def _single(self, place: Place, name: str, pieces: Sequence[Piece]) -> Scale:
        if len({each.source for each in pieces}) > 1:
            self._refuse(place, f"is joined of tensors with a {name} each")
        return Scale(name=name, shape=(), dtype="float32", pieces=(_whole(self._of(pieces[0]).scales[name]),))

    def _cut(self, place: Place, name: str, pieces: Sequence[Piece]) -> Scale:
        """Scales of blocks, cut where the rows are: only between blocks."""
        found, columns, sizes = [], set(), set()
        for piece in pieces:
            weight, scale = self._of(piece).weight, self._of(piece).scales[name]
            size = (1, 16) if self._of(piece).method == "bfl_nvfp4" else block_of(weight.shape, scale.shape)
            if size is None:
                self._refuse(place, f"has scales of shape {_words(scale.shape)}, whose blocks nobody can tell")
            sizes.add(size)
            columns.add(scale.shape[1])
            ends = piece.stop % size[0] and (piece.stop != weight.shape[0] or piece is not pieces[-1])
            if piece.start % size[0] or ends:
                self._refuse(place, f"is cut at row {piece.start}, inside a block of {size[0]} rows with one scale")
            found.append(Piece(source=scale.name, start=piece.start // size[0], stop=-(-piece.stop // size[0])))
        if len(columns) > 1 or len(sizes) > 1:
            self._refuse(place, "is joined of tensors with blocks of different sizes")
        rows = sum(piece.stop - piece.start for piece in found)
        dtype = "float8_e4m3fn" if self._of(pieces[0]).method == "bfl_nvfp4" else "float32"
        return Scale(name=name, shape=(rows, columns.pop()), dtype=dtype, pieces=tuple(found))

    def _tiled(self, place: Place, pieces: Sequence[Piece]) -> Scale:
        """Swizzled scales lie in tiles of 128 rows each, one tile row behind another, and are cut between those."""
        found, total = [], 0
        for piece in pieces:
            rows = self._of(piece).weight.shape[0]
            scale = self._of(piece).scales[_SCALE]
            whole = (piece.start, piece.stop) == (0, rows)
            if (piece.start % _TILE_ROWS or piece.stop % _TILE_ROWS) and not (whole and len(pieces) == 1):
                self._refuse(place, f"is cut at row {piece.start}, and its scales only come apart every 128 rows")
            held = -(-rows // _TILE_ROWS) * _TILE_ROWS
            if scale.shape[0] != held or len(scale.shape) != 2:
                self._refuse(place, f"has scales of shape {_words(scale.shape)}, which have no {held} rows")
            stop = held if piece.stop == rows else piece.stop
            found.append(Piece(source=scale.name, start=piece.start, stop=stop))
            total += stop - piece.start
        method = self._of(pieces[0]).method
        columns = {self.file.tensors[each.source].shape[1] for each in found}
        if len(columns) > 1:
            self._refuse(place, "is joined of tensors of different widths")
        dtype = "float8_e4m3fn" if method == "nvfp4" else "uint8"
        return Scale(name=_SCALE, shape=(total, columns.pop()), dtype=dtype, pieces=tuple(found))

    # Checks

    def _check_shape(self, place: Place, made: Made, kinds: Mapping[str, Quantised | None]) -> None:
        if made.shape == place.shape:
            return
        multiple = {_PADDED.get(each.method, 0) if each else 0 for each in kinds.values()}
        size = multiple.pop()
        padded = tuple(-(-each // size) * size for each in place.shape) if size else ()
        if multiple or made.shape != padded or len(made.pieces) > 1 or made.strided is not None:
            raise InvalidFile(
                f"{self.file.path}: {made.pieces[0].source} gives {place.name} the shape {_words(made.shape)}, and the"
                f" component's config wants {_words(place.shape)}; give the file or the config of the same model."
            )

    def _check_blocks(self, place: Place, pieces: Iterable[Piece]) -> None:
        """GGUF's blocks lie along the rows, unless a tensor was reshaped: then it only goes whole."""
        for piece in pieces:
            weight = self._of(piece).weight
            if self._of(piece).method != "gguf" or (piece.start, piece.stop) == (0, (weight.shape or (1,))[0]):
                continue
            if math.prod(weight.shape[1:]) % gguf_blocks(weight.format)[1]:
                self._refuse(place, f"takes a part of {weight.name}, whose rows are no whole blocks of {weight.format}")

    def _of(self, piece: Piece) -> Quantised:
        return self.quantised[piece.source]

    def _row(self, made: Made) -> int:
        return math.prod(self.file.tensors[made.pieces[0].source].shape[1:])

    def _bytes(self, piece: Piece) -> int:
        stored = self.file.tensors[piece.source]
        return stored.bytes * (piece.stop - piece.start) * piece.repeat // (stored.shape or (1,))[0]

    def _refuse(self, place: Place, why: str) -> NoReturn:
        raise InvalidFile(
            f"{self.file.path}: {place.name} {why}; take the component as GGUF, or in diffusers' own layout."
        )


def keeps_rows(strided: Strided, row: int) -> bool:
    """Whether a view only reorders whole rows of ``row`` values, so that it holds for packed rows too."""
    whole = strided.size[-1] == row and strided.stride[-1] == 1
    return whole and all(each % row == 0 for each in (*strided.stride[:-1], strided.offset))


def _whole(tensor: StoredTensor) -> Piece:
    return Piece(source=tensor.name, start=0, stop=(tensor.shape or (1,))[0])


def _scale_bytes(scale: Scale) -> int:
    size: int = getattr(torch, scale.dtype).itemsize
    return math.prod(scale.shape) * size


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _words(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"
