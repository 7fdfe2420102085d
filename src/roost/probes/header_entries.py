"""The entries of a safetensors header: a fast check that can only say yes, and an exact one that says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn, Protocol

from roost.probes.quoting import quoted
from roost.probes.strict_json import parse_plain

# Bits of one element, for every dtype of safetensors 0.8.
DTYPE_BITS: Mapping[str, int] = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
MAX_NAME_CHARACTERS = 500
_FIELDS = ("dtype", "shape", "data_offsets")
_METADATA = "__metadata__"
_UNSIGNED_LIMIT = 2**64
_MAX_PAYLOAD_BYTES = 2**60  # the library counts bits in 64


@dataclass(frozen=True, slots=True)
class Entries:
    """Tensors of one file. Sizes are name -> bytes for each dtype: flat, for there are tens of thousands."""

    sizes: dict[str, dict[str, int]]
    metadata: dict[str, str]
    payload_bytes: int


class Reject(Protocol):
    def __call__(self, reason: str) -> NoReturn: ...


def quick_entries(text: str) -> Entries | None:
    """The entries of a header that is plainly right, or None when ``check_entries`` has to decide."""
    header = parse_plain(text)
    if type(header) is not dict:
        return None
    metadata = header.pop(_METADATA, None)
    if metadata is not None and not (type(metadata) is dict and all(type(each) is str for each in metadata.values())):
        return None
    if not _marks_are_those_of(text, len(header), metadata):
        return None
    try:
        sizes, payload_bytes = _quick_sizes(header)
    except (KeyError, TypeError, ValueError):
        return None
    return Entries(sizes, metadata or {}, payload_bytes)


def _marks_are_those_of(text: str, tensors: int, metadata: Mapping[str, str] | None) -> bool:
    """Whether ``text`` has just the strings, lists and objects that so many right entries have.

    A key given twice, a nested list or a string among numbers each adds one; nothing takes one away.
    """
    strings = 5 * tensors + (0 if metadata is None else 1 + 2 * len(metadata))
    return (
        text.count('"') == 2 * strings
        and text.count("[") == 2 * tensors
        and text.count("{") == tensors + (1 if metadata is None else 2)
    )


def _quick_sizes(header: Mapping[str, Any]) -> tuple[dict[str, dict[str, int]], int]:
    """Sizes and payload of a right header; ValueError, KeyError or TypeError for any other."""
    sizes: dict[str, dict[str, int]] = {}
    position, in_order = 0, True
    for name, entry in header.items():
        dtype = entry["dtype"]
        start, end = entry["data_offsets"]
        stored = end - start
        if not stored or prod(entry["shape"]) * DTYPE_BITS[dtype] != 8 * stored:
            raise ValueError
        if start != position:
            in_order = False
        position = end
        if dtype not in sizes:
            sizes[dtype] = {}
        sizes[dtype][name] = stored
    if not in_order:
        position = _end_of_spans(sorted(entry["data_offsets"] for entry in header.values()))
    if position >= _MAX_PAYLOAD_BYTES or max(map(len, header), default=0) > MAX_NAME_CHARACTERS:
        raise ValueError
    return sizes, position


def _end_of_spans(spans: list[list[int]]) -> int:
    position = 0
    for start, end in spans:
        if start != position:
            raise ValueError
        position = end
    return position


def check_entries(header: Any, reject: Reject) -> Entries:
    """The entries of a parsed header; the first one that is wrong goes to ``reject`` with its reason."""
    if type(header) is not dict:
        reject("its header must be an object ({...})")
    metadata = _check_metadata(header.pop(_METADATA, {}), reject)
    spans: list[tuple[int, int, str]] = []
    sizes: dict[str, dict[str, int]] = {}
    for name, entry in header.items():
        if len(name) > MAX_NAME_CHARACTERS:
            reject(f"tensor {quoted(name)} has a name of more than {MAX_NAME_CHARACTERS} characters")
        start, end = _check_offsets(name, _check_fields(name, entry, reject), reject)
        _check_span(name, entry, end - start, reject)
        sizes.setdefault(entry["dtype"], {})[name] = end - start
        spans.append((start, end, name))
    return Entries(sizes, metadata, _check_coverage(sorted(spans), reject))


def _check_metadata(metadata: Any, reject: Reject) -> dict[str, str]:
    if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
        reject(f"{_METADATA} must be an object of strings")
    return metadata


def _check_fields(name: str, entry: Any, reject: Reject) -> Mapping[str, Any]:
    if type(entry) is not dict:
        reject(f"tensor {quoted(name)} must be an object with {', '.join(_FIELDS)}")
    for field in _FIELDS:
        if field not in entry:
            reject(f"tensor {quoted(name)} has no {field}")
    for field in entry:
        if field not in _FIELDS:
            reject(f"tensor {quoted(name)} has an unknown field {quoted(field)}")
    if type(entry["dtype"]) is not str or entry["dtype"] not in DTYPE_BITS:
        reject(f"tensor {quoted(name)} has the unknown dtype {quoted(entry['dtype'])}")
    if not _are_unsigned(entry["shape"]):
        reject(f"tensor {quoted(name)} has a shape that isn't a list of unsigned integers")
    return entry


def _check_offsets(name: str, entry: Mapping[str, Any], reject: Reject) -> tuple[int, int]:
    offsets = entry["data_offsets"]
    if not _are_unsigned(offsets) or len(offsets) != 2:
        reject(f"tensor {quoted(name)} has data_offsets that aren't two unsigned integers")
    start, end = offsets
    if end < start:
        reject(f"tensor {quoted(name)} ends before it starts")
    return start, end


def _are_unsigned(values: Any) -> bool:
    return type(values) is list and all(type(each) is int and 0 <= each < _UNSIGNED_LIMIT for each in values)


def _check_span(name: str, entry: Mapping[str, Any], stored: int, reject: Reject) -> None:
    elements, dtype = 1, entry["dtype"]
    for size in entry["shape"]:
        elements *= size
        # Before a later zero hides it: the library's arithmetic has 64 bits.
        if elements >= _UNSIGNED_LIMIT:
            reject(f"tensor {quoted(name)} has a shape too large for 64 bits")
    bits = elements * DTYPE_BITS[dtype]
    if bits % 8:
        reject(f"tensor {quoted(name)} of {dtype} doesn't fill whole bytes")
    if bits != 8 * stored:
        reject(f"tensor {quoted(name)} spans {stored} bytes where its shape and {dtype} take {bits // 8}")


def _check_coverage(spans: list[tuple[int, int, str]], reject: Reject) -> int:
    """Where the data ends, if the spans follow each other from 0."""
    position = 0
    for start, end, name in spans:
        if start != position:
            fault = "leaves a hole before" if start > position else "overlaps the data before"
            reject(f"tensor {quoted(name)} {fault} byte {max(start, position)}")
        position = end
    if position >= _MAX_PAYLOAD_BYTES:
        reject("its data would be larger than any file")
    return position
