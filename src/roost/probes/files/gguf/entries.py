"""A GGUF header's entries: keys with plain values, and what is said of each tensor. Arrays not asked for are passed."""

from __future__ import annotations

import math
import struct
from collections.abc import Container
from dataclasses import dataclass

from roost.probes.files.gguf.ggml_types import GGML_TYPES, GgmlType
from roost.probes.files.gguf.stream import HeaderStream
from roost.probes.files.header_entries import MAX_NAME_CHARACTERS
from roost.probes.files.safe_files import quoted

PlainValue = str | int | float | bool

MAX_DIMENSIONS = 8  # ggml itself stops at 4; converters of video models write 5, which the gguf package reads
_ELEMENTS_LIMIT = 2**60
_MAX_TEXT_BYTES = 16 * 1024**2
_MAX_KEPT_TEXT_BYTES = 64 * 1024  # what is longer, such as a chat template, says nothing of weights
_MAX_ARRAY = 100_000_000
_MAX_WHOLE_ARRAY = 4_000_000
_MAX_SHAPE_NUMBERS = 8

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_BOOL, _STRING, _ARRAY, _I32 = 7, 8, 9, 5
_SCALARS: dict[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: _U32,
    _I32: struct.Struct("<i"),
    6: struct.Struct("<f"),
    _BOOL: struct.Struct("<B"),
    10: _U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
UNSIGNED_32 = 4
# Shapes that ggml can't hold, or that a converter flattened so that rows fill blocks.
TRUE_SHAPE = "comfy.gguf.orig_shape."


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """What a header says of a tensor: its shape with rows first, and where its data begin after the header."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements // self.type.block * self.type.block_bytes


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key with the number of its type; ``value`` is None for what isn't kept."""

    key: str
    type: int
    value: PlainValue | tuple[PlainValue, ...] | None


def read_unsigned(stream: HeaderStream, layout: struct.Struct) -> int:
    """The next unsigned integer."""
    return int(stream.unpack(layout)[0])


def read_count(stream: HeaderStream) -> int:
    """The next 64 bits, a count."""
    return read_unsigned(stream, _U64)


def read_key(stream: HeaderStream, arrays: Container[str] = ()) -> KeyEntry:
    """The next key and its value; of the ``arrays`` by that name all entries."""
    key = _read_name(stream, "a key")
    kind = read_unsigned(stream, _U32)
    if kind == _ARRAY:
        return KeyEntry(key, kind, _read_array(stream, key, whole=key in arrays))
    if kind == _STRING:
        return KeyEntry(key, kind, _read_text(stream, key))
    if kind not in _SCALARS:
        stream.reject(f"key {quoted(key)} has the unknown type {kind}")
    value = stream.unpack(_SCALARS[kind])[0]
    if kind == _BOOL:
        if value not in (0, 1):
            stream.reject(f"key {quoted(key)} is a truth value that is {value}")
        return KeyEntry(key, kind, bool(value))
    return KeyEntry(key, kind, value if math.isfinite(value) else None)


def read_tensor(stream: HeaderStream) -> TensorEntry:
    """The next tensor's entry."""
    name = _read_name(stream, "a tensor")
    dimensions = read_unsigned(stream, _U32)
    if dimensions > MAX_DIMENSIONS:
        stream.reject(f"tensor {quoted(name)} has {dimensions} dimensions, more than {MAX_DIMENSIONS}")
    shape = tuple(read_unsigned(stream, _U64) for _ in range(dimensions))[::-1]
    number, offset = read_unsigned(stream, _U32), read_unsigned(stream, _U64)
    kind = GGML_TYPES.get(number)
    if kind is None:
        stream.reject(f"tensor {quoted(name)} has the unknown type {number}")
    elements = 1
    for size in shape:
        elements *= size
        if elements >= _ELEMENTS_LIMIT or size >= _ELEMENTS_LIMIT:  # also where a zero would hide it
            stream.reject(f"tensor {quoted(name)} has a shape too large for any file")
    if kind.is_packed and (not shape or shape[-1] % kind.block):
        stream.reject(f"tensor {quoted(name)} has rows that don't fill blocks of {kind.block}, as {kind.name} needs")
    return TensorEntry(name, shape, kind, offset)


def _read_name(stream: HeaderStream, what: str) -> str:
    length = read_unsigned(stream, _U64)
    if not 0 < length <= 4 * MAX_NAME_CHARACTERS:
        stream.reject(f"{what} has a name of {length} bytes")
    name = _decoded(stream, stream.take(length), f"the name of {what}")
    if len(name) > MAX_NAME_CHARACTERS:
        stream.reject(f"{what} has a name of more than {MAX_NAME_CHARACTERS} characters")
    return name


def _read_text(stream: HeaderStream, key: str) -> str | None:
    length = read_unsigned(stream, _U64)
    if length > _MAX_TEXT_BYTES:
        stream.reject(f"key {quoted(key)} has a text of {length} bytes")
    text = _decoded(stream, stream.take(length), f"the text of key {quoted(key)}")
    return text if length <= _MAX_KEPT_TEXT_BYTES else None


def _decoded(stream: HeaderStream, raw: bytes, what: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        stream.reject(f"byte {error.start} of {what} is not UTF-8")


def _read_array(stream: HeaderStream, key: str, *, whole: bool) -> tuple[PlainValue, ...] | None:
    """Passes an array; only true shapes are kept, and what is wanted whole."""
    kind, count = read_unsigned(stream, _U32), read_unsigned(stream, _U64)
    if kind == _ARRAY or (kind not in _SCALARS and kind != _STRING):
        stream.reject(f"key {quoted(key)} is an array of the {'nested' if kind == _ARRAY else 'unknown'} type {kind}")
    if count > _MAX_ARRAY:
        stream.reject(f"key {quoted(key)} is an array of {count} entries")
    if key.startswith(TRUE_SHAPE):
        if kind != _I32 or count > _MAX_SHAPE_NUMBERS:
            stream.reject(f"key {quoted(key)} is no shape: it must hold at most {_MAX_SHAPE_NUMBERS} 32-bit integers")
        shape = tuple(int(stream.unpack(_SCALARS[_I32])[0]) for _ in range(count))
        if min(shape, default=0) < 0:
            stream.reject(f"key {quoted(key)} is a shape with a negative number")
        return shape
    if whole:
        if count > _MAX_WHOLE_ARRAY:
            stream.reject(f"key {quoted(key)} is an array of {count} entries, more than {_MAX_WHOLE_ARRAY}")
        if kind == _STRING:
            what = f"a text in key {quoted(key)}"
            return tuple(_decoded(stream, stream.take(read_unsigned(stream, _U64)), what) for _ in range(count))
        return stream.unpack(struct.Struct(f"<{count}{_SCALARS[kind].format[1:]}"))
    if kind == _STRING:
        stream.skip_strings(count)
    else:
        stream.skip(count * _SCALARS[kind].size)
    return None
