"""Headers in any spelling of JSON, checked column by column: a fraction of the time of an entry after another.

None for whatever isn't plainly right: ``header_entries`` then looks at it exactly and says what is wrong, if anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain
from math import prod
from operator import itemgetter, sub
from typing import Any

from roost.probes.files.header_entries import (
    DTYPE_BITS,
    FIELDS,
    MAX_NAME_CHARACTERS,
    METADATA_KEY,
    UNSIGNED_LIMIT,
    Entries,
    are_adjacent,
)
from roost.probes.files.strict_json import count_keys

# What stands before a number. It may stand before a minus in a string too, which is then left to the exact check.
_BEFORE_NUMBERS = "[,: \t\n\r"

_Kind = tuple[str, tuple[int, ...]]  # dtype and shape


def read_plain(text: str) -> Entries | None:
    """The entries of a header that is right; None when it may be anything else."""
    if any(f"{mark}-" in text for mark in _BEFORE_NUMBERS):  # a sign, which Python's integers forget before a zero
        return None
    try:
        header = json.loads(text)
        if type(header) is not dict:
            return None
        metadata = header.pop(METADATA_KEY, None)
        keys = len(header) * (1 + len(FIELDS)) + (0 if metadata is None else 1 + len(metadata))
        if not _are_strings(metadata) or keys != count_keys(text):
            return None
        return _read_tensors(header, metadata or {}) if header else Entries({}, metadata or {}, 0)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _are_strings(metadata: Any) -> bool:
    if metadata is None:
        return True
    return type(metadata) is dict and _types(metadata.values()) <= {str} and _are_encodable(chain(*metadata.items()))


def _read_tensors(header: dict[str, Any], metadata: dict[str, str]) -> Entries | None:
    entries = header.values()
    if _types(entries) != {dict} or set(map(len, entries)) != {len(FIELDS)}:
        return None
    dtypes, shapes, offsets = zip(*map(itemgetter(*FIELDS), entries), strict=True)
    if not (_are_lists_of_integers(shapes) and _are_lists_of_integers(offsets) and _types(dtypes) == {str}):
        return None
    starts, ends = zip(*offsets, strict=True)
    kinds = list(zip(dtypes, map(tuple, shapes), strict=True))
    bytes_of = {kind: _stored_bytes(kind) for kind in set(kinds)}
    stored = [bytes_of[kind] for kind in kinds]
    if list(map(sub, ends, starts)) != stored or not are_adjacent(starts, ends):
        return None
    if max(map(len, header)) > MAX_NAME_CHARACTERS or not _are_encodable(header):
        return None
    return Entries(_by_dtype(header, dtypes, stored), metadata, max(ends))


def _types(values: Iterable[Any]) -> set[type]:
    return set(map(type, values))


def _are_lists_of_integers(values: tuple[Any, ...]) -> bool:
    return _types(values) == {list} and _types(chain.from_iterable(values)) <= {int}


def _are_encodable(texts: Iterable[str]) -> bool:
    """False for half of a surrogate pair, which an escape can stand for."""
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _stored_bytes(kind: _Kind) -> int:
    """Bytes of a tensor; KeyError for an unknown dtype, ValueError for what is no whole number of bytes in 64 bits."""
    dtype, shape = kind
    if prod(size or 1 for size in shape) >= UNSIGNED_LIMIT:  # also where a zero would hide it
        raise ValueError
    bits = prod(shape) * DTYPE_BITS[dtype]
    if bits % 8:
        raise ValueError
    return bits // 8


def _by_dtype(names: Iterable[str], dtypes: tuple[str, ...], stored: list[int]) -> dict[str, dict[str, int]]:
    grouped: dict[str, dict[str, int]] = {dtype: {} for dtype in dtypes}
    if len(grouped) == 1:
        return {dtypes[0]: dict(zip(names, stored, strict=True))}
    for name, dtype, size in zip(names, dtypes, stored, strict=True):
        grouped[dtype][name] = size
    return grouped
