"""A header's bytes, one after another: never past the file's end, never more than a header may have."""

from __future__ import annotations

import hashlib
import struct
from typing import NoReturn

from roost.errors import InvalidFile
from roost.probes.files.safe_files import RegularFile, shown
from roost.units import format_bytes

MAX_HEADER_BYTES = 100_000_000
_CHUNK_BYTES = 256 * 1024
_LENGTH = struct.Struct("<Q")
_AGAIN = "Fetch that file again."


class HeaderStream:
    """Reads on from the file's first byte, a chunk at a time, and hashes what it has passed."""

    def __init__(self, file: RegularFile) -> None:
        self._file = file
        self._chunk = b""
        self._chunk_start = 0
        self._next = 0  # within the chunk
        self._hash = hashlib.sha256()

    @property
    def position(self) -> int:
        """The offset of the next byte in the file."""
        return self._chunk_start + self._next

    def reject(self, reason: str) -> NoReturn:
        """InvalidFile with that reason."""
        raise InvalidFile(f"{shown(self._file.where)} isn't a valid GGUF file: {reason}. {_AGAIN}")

    def reject_short(self, missing_bytes: int) -> NoReturn:
        """InvalidFile for a file that ends before what its header promises."""
        raise InvalidFile(
            f"{shown(self._file.where)} is {format_bytes(missing_bytes)} short of what its header promises "
            f"(interrupted download?). {_AGAIN}"
        )

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        self._need(count)
        taken = self._chunk[self._next : self._next + count]
        self._next += count
        return taken

    def unpack(self, layout: struct.Struct) -> tuple[int | float, ...]:
        """The next numbers of that layout."""
        self._need(layout.size)
        values = layout.unpack_from(self._chunk, self._next)
        self._next += layout.size
        return values

    def skip(self, count: int) -> None:
        """Goes past ``count`` bytes, which count for the hash."""
        while count > 0:
            step = min(count, _CHUNK_BYTES)
            self._need(step)
            self._next += step
            count -= step

    def skip_strings(self, count: int) -> None:
        """Goes past ``count`` texts, each with its length before it: a tokenizer has hundreds of thousands."""
        for _ in range(count):
            if self._next + _LENGTH.size > len(self._chunk):
                self._need(_LENGTH.size)
            (length,) = _LENGTH.unpack_from(self._chunk, self._next)
            self._next += _LENGTH.size
            if self._next + length <= len(self._chunk):
                self._next += length
                continue
            if length > MAX_HEADER_BYTES:
                self.reject(f"a text would be {length} bytes long")
            self.skip(length)

    def finish(self) -> str:
        """The hash of all bytes up to here."""
        self._pass_chunk()
        return self._hash.hexdigest()

    def _need(self, count: int) -> None:
        """Makes the chunk hold the next ``count`` bytes."""
        if self._next + count <= len(self._chunk):
            return
        start = self.position
        if start + count > MAX_HEADER_BYTES:
            self.reject(f"its header would be longer than {format_bytes(MAX_HEADER_BYTES)}")
        if start + count > self._file.bytes:
            self.reject_short(start + count - self._file.bytes)
        self._pass_chunk()
        read = min(max(count, _CHUNK_BYTES), self._file.bytes - start)
        self._chunk, self._chunk_start, self._next = self._file.read_at(start, read), start, 0

    def _pass_chunk(self) -> None:
        self._hash.update(memoryview(self._chunk)[: self._next])
        self._chunk_start += self._next
        self._chunk, self._next = self._chunk[self._next :], 0
