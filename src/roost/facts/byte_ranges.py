"""Which of a component's tensors are one range of its file's bytes, and so need no copy in host memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from roost.facts.weight_files import Piece, Recipe, Scale, Target, WeightFile

# torch's names of the containers' words for plain values. What torch has no arithmetic for is held as bytes.
DTYPE_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "uint8",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_ITEM_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """A tensor as its module holds it, by its name there, and where those very bytes lie in the file.

    The name of a packed weight is the plain one's.
    """

    name: str
    offset: int
    bytes: int
    dtype: str
    shape: tuple[int, ...]


def item_bytes(dtype: str) -> int:
    """Bytes of one value of a dtype by torch's name."""
    return _ITEM_BYTES.get(dtype, 1)


def byte_ranges(file: WeightFile, recipe: Recipe) -> Iterator[ByteRange]:
    """The ranges of all tensors that need no conversion; what is joined, reordered, decoded or cast has none."""
    for target in recipe.targets:
        found = _range_of(file, target)
        if found is not None:
            yield found
        layer = target.name.rpartition(".")[0]
        for scale in target.scales if target.packed else ():
            found = _of_one_piece(file, scale.pieces, f"{layer}.{scale.name}", scale)
            if found is not None:
                yield found


def _range_of(file: WeightFile, target: Target) -> ByteRange | None:
    if target.strided is not None or target.add or not (target.packed or target.method is None):
        return None
    return _of_one_piece(file, target.pieces, target.name, target)


def _of_one_piece(file: WeightFile, pieces: tuple[Piece, ...], name: str, held: Target | Scale) -> ByteRange | None:
    if len(pieces) != 1 or pieces[0].repeat != 1:
        return None
    piece, stored = pieces[0], file.tensors[pieces[0].source]
    packed = isinstance(held, Target) and held.packed
    if not packed and DTYPE_NAMES.get(stored.format) != held.dtype:
        return None
    rows = (stored.shape or (1,))[0]
    row_bytes = stored.bytes // rows if rows else 0
    offset, size = stored.offset + row_bytes * piece.start, row_bytes * (piece.stop - piece.start)
    if not size or offset % item_bytes(held.dtype):  # the unaligned are copied
        return None
    shape = (piece.stop - piece.start, row_bytes // item_bytes(held.dtype)) if packed else held.shape
    return ByteRange(name=name, offset=offset, bytes=size, dtype=held.dtype, shape=shape)
