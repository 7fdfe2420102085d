"""A whole GGUF header: version, keys, tensors, and where their data lie in the file."""

from __future__ import annotations

import math
import struct
from collections.abc import Container, Mapping
from dataclasses import dataclass

from roost.errors import InvalidFile
from roost.facts.weight_files import StoredTensor
from roost.probes.files.gguf.entries import (
    TRUE_SHAPE,
    UNSIGNED_32,
    KeyEntry,
    PlainValue,
    TensorEntry,
    read_count,
    read_key,
    read_tensor,
    read_unsigned,
)
from roost.probes.files.gguf.stream import HeaderStream
from roost.probes.files.safe_files import RegularFile, quoted, shown

MAGIC = b"GGUF"
MAX_TENSORS = 200_000
MAX_KEYS = 100_000
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT, _LEAST_ALIGNMENT = 32, 8
_ALIGNMENT_KEY = "general.alignment"
_PACKAGE_KEYS = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count")  # the gguf package has them itself
_U32 = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says of itself; offsets of tensors count from the file's first byte."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, PlainValue]
    sha256: str


def read_gguf_header(file: RegularFile) -> GgufHeader:
    """The header of an open file that begins with ``MAGIC``; InvalidFile, with the reason, for what isn't right."""
    stream = HeaderStream(file)
    tensor_count, keys = _read_keys(stream, file.where)
    entries = _read_tensors(stream, tensor_count)
    alignment = _alignment(stream, keys.get(_ALIGNMENT_KEY))
    data_start = -(-stream.position // alignment) * alignment
    _check_spans(stream, list(entries.values()), alignment, file.bytes - data_start)
    shapes = {key.removeprefix(TRUE_SHAPE): each.value for key, each in keys.items() if key.startswith(TRUE_SHAPE)}
    return GgufHeader(
        tensors={name: _stored(stream, each, data_start, shapes.get(name)) for name, each in entries.items()},
        metadata={key: each.value for key, each in keys.items() if isinstance(each.value, str | int | float)},
        sha256=stream.finish(),
    )


def read_gguf_arrays(file: RegularFile, names: Container[str]) -> Mapping[str, tuple[PlainValue, ...]]:
    """The arrays of those names that an open file's header has, such as a tokenizer's vocabulary."""
    _, keys = _read_keys(HeaderStream(file), file.where, names)
    return {key: each.value for key, each in keys.items() if key in names and isinstance(each.value, tuple)}


def _check_version(stream: HeaderStream, where: str) -> None:
    version = read_unsigned(stream, _U32)
    if version in _VERSIONS:
        return
    if version & 0xFFFF == 0 and version:
        raise InvalidFile(
            f"{shown(where)} is a big-endian GGUF file, which no library here reads. Fetch the little-endian one."
        )
    if version == 1:
        raise InvalidFile(
            f"{shown(where)} is a GGUF file of version 1, which nothing reads any more. Fetch a newer one."
        )
    stream.reject(f"its version is {version}, and this reads {' and '.join(map(str, _VERSIONS))}")


def _read_keys(stream: HeaderStream, where: str, arrays: Container[str] = ()) -> tuple[int, dict[str, KeyEntry]]:
    """From the file's first byte on: how many tensors it lists, and its keys."""
    stream.take(len(MAGIC))
    _check_version(stream, where)
    tensor_count, key_count = read_count(stream), read_count(stream)
    if tensor_count > MAX_TENSORS:
        stream.reject(f"it lists {tensor_count} tensors, more than {MAX_TENSORS}")
    if key_count > MAX_KEYS:
        stream.reject(f"it lists {key_count} keys, more than {MAX_KEYS}")
    found: dict[str, KeyEntry] = {}
    for _ in range(key_count):
        entry = read_key(stream, arrays)
        if entry.key in found or entry.key in _PACKAGE_KEYS:
            stream.reject(f"key {quoted(entry.key)} comes twice")
        found[entry.key] = entry
    return tensor_count, found


def _read_tensors(stream: HeaderStream, count: int) -> dict[str, TensorEntry]:
    found: dict[str, TensorEntry] = {}
    for _ in range(count):
        entry = read_tensor(stream)
        if entry.name in found:
            stream.reject(f"tensor {quoted(entry.name)} comes twice")
        found[entry.name] = entry
    return found


def _alignment(stream: HeaderStream, entry: KeyEntry | None) -> int:
    if entry is None:
        return _DEFAULT_ALIGNMENT
    value = entry.value
    if entry.type != UNSIGNED_32 or not isinstance(value, int):
        stream.reject(f"{_ALIGNMENT_KEY} must be an unsigned 32-bit integer")
    if value < _LEAST_ALIGNMENT or value & (value - 1):
        stream.reject(f"{_ALIGNMENT_KEY} is {value}, which is no power of two from {_LEAST_ALIGNMENT} on")
    return value


def _check_spans(stream: HeaderStream, entries: list[TensorEntry], alignment: int, data_bytes: int) -> None:
    """Every tensor lies in the file, begins where the alignment says, and none in another."""
    end = 0
    for entry in sorted(entries, key=lambda each: (each.offset, each.bytes)):
        if entry.offset % alignment:
            stream.reject(f"tensor {quoted(entry.name)} begins at {entry.offset}, no multiple of {alignment}")
        if entry.offset < end:
            stream.reject(f"tensor {quoted(entry.name)} overlaps the data before byte {end}")
        end = entry.offset + entry.bytes
    if end > max(0, data_bytes):
        stream.reject_short(end - data_bytes)


def _stored(stream: HeaderStream, entry: TensorEntry, data_start: int, true_shape: object) -> StoredTensor:
    shape = entry.shape
    if isinstance(true_shape, tuple):
        if math.prod(true_shape) != entry.elements:
            stream.reject(f"the true shape of tensor {quoted(entry.name)} has another number of elements than it holds")
        shape = true_shape
    return StoredTensor(
        name=entry.name, shape=shape, format=entry.type.name, offset=data_start + entry.offset, bytes=entry.bytes
    )
