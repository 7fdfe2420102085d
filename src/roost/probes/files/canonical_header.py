"""Headers as the safetensors library writes them, matched by their pattern: faster than parsing them as JSON.

A text that the pattern covers to the last character, with offsets that its shapes give, is right by construction.
Any other gets None here: ``plain_header`` and ``header_entries`` then parse it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import accumulate, chain, pairwise
from math import prod
from operator import sub
from typing import NamedTuple

from roost.probes.files.header_entries import (
    DTYPE_BITS,
    MAX_NAME_CHARACTERS,
    MAX_PAYLOAD_BYTES,
    METADATA_KEY,
    Entries,
    are_adjacent,
)
from roost.probes.files.strict_json import HEADER_DECODER

_NEVER_IN_JSON_STRINGS = tuple(map(chr, range(32)))
_MAX_SHAPE_CHARACTERS = 100  # longer numbers or lists are left to the exact check
_NUMBER = re.compile(r"0|[1-9][0-9]*")


class _Style(NamedTuple):
    """How one writer spells an entry: a name, the dtype together with the shape (the *kind*), and the offsets."""

    colon: str
    comma: str
    shape_key: str  # what stands between dtype and shape
    entry: re.Pattern[str]  # one entry with the comma after it
    fixed_characters: int  # of an entry, beyond name, kind and offsets


def _style(colon: str, comma: str) -> _Style:
    dtype_key = f'"{colon}{{"dtype"{colon}"'
    shape_key = f'"{comma}"shape"{colon}['
    offsets_key = f']{comma}"data_offsets"{colon}['
    end = f"]}}{comma}"
    kind = f"[A-Z0-9_]+{re.escape(shape_key)}[0-9, ]*"
    entry = f'"([^"]*){re.escape(dtype_key)}({kind}){re.escape(offsets_key)}([0-9]+{comma}[0-9]+){re.escape(end)}'
    fixed_characters = len('"' + dtype_key + offsets_key + end)
    return _Style(colon, comma, shape_key, re.compile(entry), fixed_characters)


_STYLES = (_style(":", ","), _style(": ", ", "))  # safetensors' own, and json.dumps's default


def read_canonical(text: str) -> Entries | None:
    """The entries of a canonical header; None when it is anything else."""
    if any(character in text for character in _NEVER_IN_JSON_STRINGS):
        return None
    text = text.rstrip(" ")
    for style in _STYLES:
        try:
            metadata, tensors = _split_metadata(text, style)
            if not tensors:
                return Entries({}, metadata, 0)
            return _read_tensors(metadata, tensors, style)
        except ValueError:
            continue
    return None


def _split_metadata(text: str, style: _Style) -> tuple[dict[str, str], str]:
    """The metadata, and what follows it: each tensor with a comma after it."""
    start = f'{{"{METADATA_KEY}"{style.colon}'
    if not text.startswith("{") or "\\" in text:
        raise ValueError
    metadata, end = HEADER_DECODER.raw_decode(text, len(start)) if text.startswith(start) else ({}, 1)
    if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
        raise ValueError
    rest = text[end:]
    if rest == "}":
        return metadata, ""
    after_metadata = style.comma if end > 1 else ""
    if not rest.startswith(after_metadata) or not rest.endswith("}"):
        raise ValueError
    return metadata, rest[len(after_metadata) : -1] + style.comma


def _read_tensors(metadata: dict[str, str], text: str, style: _Style) -> Entries:
    if style.entry.match(text) is None or f'"{METADATA_KEY}"' in text:  # found out before the rest is read
        raise ValueError
    found = style.entry.findall(text)
    names, kinds, spans = zip(*found, strict=True) if found else ((), (), ())
    varying_characters = sum(map(len, ("".join(names), "".join(kinds), "".join(spans))))
    if varying_characters + len(names) * style.fixed_characters != len(text):
        raise ValueError
    bytes_of = {kind: _stored_bytes(kind, style) for kind in set(kinds)}
    stored = [bytes_of[kind] for kind in kinds]
    payload_bytes = _check_spans(spans, stored, style)
    sizes = dict(zip(names, stored, strict=True))
    if len(sizes) < len(names) or max(map(len, sizes)) > MAX_NAME_CHARACTERS:
        raise ValueError
    return Entries(_by_dtype(sizes, kinds, bytes_of), metadata, payload_bytes)


def _check_spans(spans: tuple[str, ...], stored: list[int], style: _Style) -> int:
    """Where the data ends; ValueError unless the spans are as long as they must be and follow each other from 0."""
    spelt = style.comma.join(spans)
    ends = list(accumulate(stored))
    if spelt == style.comma.join(chain.from_iterable(pairwise(map(str, [0, *ends])))):
        if ends[-1] >= MAX_PAYLOAD_BYTES:
            raise ValueError
        return ends[-1]
    offsets = list(map(int, spelt.split(style.comma)))  # listed in another order
    starts, ends = offsets[::2], offsets[1::2]
    if style.comma.join(map(str, offsets)) != spelt or list(map(sub, ends, starts)) != stored:
        raise ValueError
    if not are_adjacent(starts, ends):
        raise ValueError
    return max(ends)


def _stored_bytes(kind: str, style: _Style) -> int:
    """Bytes of a tensor; ValueError for an unknown dtype, an empty tensor or a shape that isn't spelt canonically."""
    dtype, _, shape = kind.partition(style.shape_key)
    numbers = shape.split(style.comma) if shape else []
    if dtype not in DTYPE_BITS or len(shape) > _MAX_SHAPE_CHARACTERS or not all(map(_NUMBER.fullmatch, numbers)):
        raise ValueError
    bits = prod(map(int, numbers)) * DTYPE_BITS[dtype]
    if not bits or bits % 8:
        raise ValueError
    return bits // 8


def _by_dtype(sizes: dict[str, int], kinds: tuple[str, ...], known: Iterable[str]) -> dict[str, dict[str, int]]:
    """Sizes (in the order of ``kinds``) under each dtype; ``known`` are the different kinds."""
    dtype_of = {kind: kind.partition('"')[0] for kind in known}
    grouped: dict[str, dict[str, int]] = {dtype: {} for dtype in dtype_of.values()}
    if len(grouped) == 1:
        return dict.fromkeys(grouped, sizes)
    for (name, size), kind in zip(sizes.items(), kinds, strict=True):
        grouped[dtype_of[kind]][name] = size
    return grouped
