"""GGUF files for tests, put together byte by byte: right ones, and ones that are wrong in one place."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from roost.probes.files.gguf.ggml_types import GGML_BY_NAME, GGML_TYPES

NUMBERS = {each.name: number for number, each in GGML_TYPES.items()}
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
ALIGNMENT = 32


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name: str | bytes, kind: int, value: object) -> bytes:
    """A key with its value; ``value`` of an array is (kind, values)."""
    return text(name) + struct.pack("<I", kind) + _value(kind, value)


def _value(kind: int, value: object) -> bytes:
    if isinstance(value, bytes) and kind != STRING:
        return value
    if kind == STRING:
        assert isinstance(value, str | bytes)
        return text(value)
    if kind == ARRAY:
        assert isinstance(value, tuple)
        inner, values = value
        return struct.pack("<IQ", inner, len(values)) + b"".join(_value(inner, each) for each in values)
    return struct.pack(f"<{_CODES[kind]}", value)


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor as a header lists it: dimensions fastest first, the number of its type, its offset."""

    name: str | bytes
    dimensions: tuple[int, ...]
    number: int
    offset: int

    @property
    def raw(self) -> bytes:
        sizes = struct.pack(f"<{len(self.dimensions)}Q", *self.dimensions)
        placed = struct.pack("<IQ", self.number, self.offset)
        return text(self.name) + struct.pack("<I", len(self.dimensions)) + sizes + placed


def framed(
    entries: Sequence[Entry],
    keys: Sequence[bytes] = (),
    *,
    data_bytes: int = 0,
    alignment: int = ALIGNMENT,
    version: int = 3,
) -> bytes:
    """A file of these entries and keys; its data are zeros."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(entries), len(keys))
    head += b"".join(keys) + b"".join(each.raw for each in entries)
    return head + bytes(-len(head) % alignment) + bytes(data_bytes)


def gguf(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], keys: Mapping[str, object] | None = None, alignment: int = 32
) -> bytes:
    """A whole file of zeros: name -> (type, shape with rows first); ``keys`` are texts, integers and shapes."""
    entries, offset = [], 0
    for name, (kind, shape) in tensors.items():
        entries.append(Entry(name, shape[::-1], NUMBERS[kind], offset))
        each = GGML_BY_NAME[kind]
        stored = prod(shape) // each.block * each.block_bytes
        offset += stored + -stored % alignment
    return framed(entries, [_plain(*each) for each in (keys or {}).items()], data_bytes=offset, alignment=alignment)


def _plain(name: str, value: object) -> bytes:
    if isinstance(value, str):
        return key(name, STRING, value)
    if isinstance(value, tuple):
        return key(name, ARRAY, (I32, value))
    return key(name, U32, value)
