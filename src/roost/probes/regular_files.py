"""Reading of regular files only, without a shared file position: a FIFO or device is refused before it can hang."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from roost.errors import InvalidFile
from roost.probes.quoting import shown

# Each flag exists on some systems only. O_NONBLOCK is what keeps the opening of a FIFO from waiting for a writer.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOINHERIT", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class RegularFile:
    """An open regular file; ``where`` is how messages name it."""

    __slots__ = ("_descriptor", "bytes", "where")

    def __init__(self, descriptor: int, file_bytes: int, where: str) -> None:
        self._descriptor = descriptor
        self.bytes = file_bytes
        self.where = where

    def read_at(self, offset: int, count: int) -> bytes:
        """Exactly ``count`` bytes from ``offset``, or InvalidFile."""
        try:
            chunk = _pread(self._descriptor, count, offset)
            if len(chunk) == count:
                return chunk
            chunks = [chunk]
            while chunk and (count := count - len(chunk)) > 0:
                offset += len(chunk)
                chunk = _pread(self._descriptor, count, offset)
                chunks.append(chunk)
        except OSError as error:
            raise InvalidFile(f"{shown(self.where)} can't be read: {error.strerror}.") from error
        if count:
            raise InvalidFile(f"{shown(self.where)} was shortened while it was read. Run this again.")
        return b"".join(chunks)


@contextlib.contextmanager
def open_regular(path: str, where: str) -> Iterator[RegularFile]:
    """The regular file at ``path``, open for reading; anything else is InvalidFile."""
    try:
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidFile(f"{shown(where)} can't be opened: {reason}. Check its name and permissions.") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise InvalidFile(f"{shown(where)} is {kind}, not a regular file. Put the real file there.")
        yield RegularFile(descriptor, status.st_size, where)
    finally:
        os.close(descriptor)


def _seek_and_read(descriptor: int, count: int, offset: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, count)


_pread = getattr(os, "pread", _seek_and_read)  # Windows has no pread
