"""Safetensors headers, read strictly and without the data: what this accepts, the safetensors library accepts."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from roost.errors import InvalidFile
from roost.probes.files.canonical_header import read_canonical
from roost.probes.files.header_entries import check_entries
from roost.probes.files.plain_header import read_plain
from roost.probes.files.safe_files import RegularFile, open_regular, recognise_content, shown
from roost.probes.files.strict_json import HEADER_DECODER, decode_strict, parse_strict
from roost.units import format_bytes

MAX_HEADER_BYTES = 100_000_000
MAX_TENSORS = 200_000
_LENGTH_BYTES = 8
# The shortest tensor entry has this many bytes, so a smaller header can't hold too many.
_COUNTED_FROM_BYTES = MAX_TENSORS * len(b'"data_offsets"')
_AGAIN = "Fetch that file again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What one safetensors file says of itself.

    ``sizes`` are bytes by tensor name for each stored dtype (``{"BF16": {"proj.weight": 512}}``), ``sha256`` is of the
    header's JSON text.
    """

    sizes: Mapping[str, Mapping[str, int]]
    metadata: Mapping[str, str]
    payload_bytes: int
    file_bytes: int
    sha256: str


def read_header(path: str, where: str | None = None) -> Header:
    """The header of the file at ``path``; InvalidFile, with the reason, for anything that isn't safetensors.

    ``where`` is how messages name the file.
    """
    with open_regular(path, where or path) as file:
        return read_open_header(file)[1]


def read_open_header(file: RegularFile) -> tuple[bytes, Header]:
    """The header of an open file, as its JSON text and read; else as ``read_header``."""
    raw = _read_json(file)
    header = header_of(raw, file.where)
    _check_size(file, len(raw), header.payload_bytes)
    return raw, header


def read_header_text(path: str, where: str) -> bytes:
    """A header's JSON text, not checked any further."""
    with open_regular(path, where) as file:
        return _read_json(file)


def header_of(raw: bytes, where: str) -> Header:
    """What a header's JSON text says; InvalidFile, naming ``where``, for anything else."""

    def reject(reason: str) -> NoReturn:
        raise InvalidFile(f"{shown(where)} isn't a valid safetensors file: {reason}. {_AGAIN}")

    if raw[:1] != b"{":
        reject("its header doesn't begin with {")
    if len(raw) > _COUNTED_FROM_BYTES and raw.count(b'"data_offsets"') > MAX_TENSORS:
        reject(f"it lists more than {MAX_TENSORS} tensors")
    text = decode_strict(raw, reject)
    with _without_collection():
        entries = read_canonical(text) or read_plain(text)
        if entries is None:
            entries = check_entries(parse_strict(text, reject, decoder=HEADER_DECODER), reject)
    return Header(
        sizes=entries.sizes,
        metadata=entries.metadata,
        payload_bytes=entries.payload_bytes,
        file_bytes=_LENGTH_BYTES + len(raw) + entries.payload_bytes,
        sha256=hashlib.sha256(raw).hexdigest(),
    )


@contextmanager
def _without_collection() -> Iterator[None]:
    """A header makes up to a million objects and no cycle: looking for cycles meanwhile takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read_json(file: RegularFile) -> bytes:
    """The header's text, after the length before it has been found plausible."""
    where = shown(file.where)
    if not file.bytes:
        raise InvalidFile(f"{where} is empty. {_AGAIN}")
    first = file.read_at(0, min(file.bytes, 64))
    known = recognise_content(first)
    if known is not None:
        raise InvalidFile(f"{where} {known[0]}. {known[1]}")
    if len(first) < _LENGTH_BYTES:
        raise InvalidFile(f"{where} is too short for a safetensors file ({len(first)} bytes). {_AGAIN}")
    length = int.from_bytes(first[:_LENGTH_BYTES], "little")
    if length == 0:
        raise InvalidFile(f"{where} begins with zeros where its header should be (unfinished download?). {_AGAIN}")
    if length > MAX_HEADER_BYTES:
        raise InvalidFile(f"{where} isn't a safetensors file: its header would be {length} bytes long. {_AGAIN}")
    if _LENGTH_BYTES + length > file.bytes:
        _raise_short(file, _LENGTH_BYTES + length - file.bytes)
    return file.read_at(_LENGTH_BYTES, length)


def _check_size(file: RegularFile, header_bytes: int, payload_bytes: int) -> None:
    surplus = file.bytes - _LENGTH_BYTES - header_bytes - payload_bytes
    if surplus < 0:
        _raise_short(file, -surplus)
    if surplus > 0:
        raise InvalidFile(
            f"{shown(file.where)} is {format_bytes(surplus)} longer than what its header promises. {_AGAIN}"
        )


def _raise_short(file: RegularFile, missing_bytes: int) -> NoReturn:
    raise InvalidFile(
        f"{shown(file.where)} is {format_bytes(missing_bytes)} short of what its header promises "
        f"(interrupted download?). {_AGAIN}"
    )
