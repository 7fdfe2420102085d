"""The entries of a parsed safetensors header, checked exactly; what is wrong is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import eq
from typing import Any, NoReturn, Protocol

from roost.probes.files.safe_files import quoted

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
Sizes = Mapping[str, Mapping[str, int]]  # stored dtype -> tensor name -> stored bytes
MAX_NAME_CHARACTERS = 500
FIELDS = ("dtype", "shape", "data_offsets")
METADATA_KEY = "__metadata__"
UNSIGNED_LIMIT = 2**64
MAX_PAYLOAD_BYTES = 2**60  # the library counts bits in 64


@dataclass(frozen=True, slots=True)
class Entries:
    """Tensors of one file. Sizes are name -> bytes for each dtype: flat, for there are tens of thousands."""

    sizes: dict[str, dict[str, int]]
    metadata: dict[str, str]
    payload_bytes: int


class Reject(Protocol):
    def __call__(self, reason: str) -> NoReturn: ...


def check_entries(header: Any, reject: Reject) -> Entries:
    """The entries of a parsed header; the first one that is wrong goes to ``reject`` with its reason."""
    if type(header) is not dict:
        reject("its header must be an object ({...})")
    metadata = _check_metadata(header.pop(METADATA_KEY, {}), reject)
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
        reject(f"{METADATA_KEY} must be an object of strings")
    return metadata


def _check_fields(name: str, entry: Any, reject: Reject) -> Mapping[str, Any]:
    if type(entry) is not dict:
        reject(f"tensor {quoted(name)} must be an object with {', '.join(FIELDS)}")
    for field in FIELDS:
        if field not in entry:
            reject(f"tensor {quoted(name)} has no {field}")
    for field in entry:
        if field not in FIELDS:
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
    return type(values) is list and all(type(each) is int and 0 <= each < UNSIGNED_LIMIT for each in values)


def _check_span(name: str, entry: Mapping[str, Any], stored: int, reject: Reject) -> None:
    elements, dtype = 1, entry["dtype"]
    for size in entry["shape"]:
        elements *= size
        # Before a later zero hides it: the library's arithmetic has 64 bits.
        if elements >= UNSIGNED_LIMIT:
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
    if position >= MAX_PAYLOAD_BYTES:
        reject("its data would be larger than any file")
    return position


def are_adjacent(starts: Sequence[int], ends: Sequence[int]) -> bool:
    """Whether the spans follow each other from 0 and end in a file, in whatever order they are listed.

    There is at least one, and none ends before it starts.
    """
    if max(ends) >= MAX_PAYLOAD_BYTES:
        return False
    if any(map(eq, starts, ends)):  # an empty one may lie anywhere in another
        in_order, ends_in_order = map(list, zip(*sorted(zip(starts, ends, strict=True)), strict=True))
    else:  # one that begins at 0, and at each end but the last begins another
        in_order, ends_in_order = sorted(starts), sorted(ends)
    return in_order == [0, *ends_in_order[:-1]]
