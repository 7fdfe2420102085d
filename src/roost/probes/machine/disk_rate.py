"""How fast a file is read from its disk, and whether the disk was asked at all."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from roost.errors import UsageError
from roost.shell_quoting import shown_path
from roost.temporary import temporary_file
from roost.units import MiB, format_bytes

_CHUNK_BYTES = 8 * MiB
_SAMPLE_BYTES = 32 * MiB
_OWN_BYTES = 256 * MiB
_MOST_BYTES = 1024 * MiB
_LEAST_BYTES = 2 * _SAMPLE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskReading:
    """Bytes per second of each stretch of a sequential read.

    ``cached`` says whether the page cache answered: True when it held part of the file after it was asked to forget
    it, None when the system doesn't tell.
    """

    bytes_per_s: tuple[float, ...]
    cached: bool | None
    path: Path


def read_disk(file: Path | None, folder: Path) -> DiskReading:
    """Reads ``file`` from begin to end (at most 1 GiB), or a temporary one of 256 MiB that it writes into ``folder``.

    Raises UsageError for a file that can't be read or is too small to time.
    """
    if file is not None:
        return _read(file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_file(folder / "disk") as temporary:
            with temporary.open("wb") as stream:
                chunk = os.urandom(_CHUNK_BYTES)  # disks that compress would read zeros for nothing
                for _ in range(_OWN_BYTES // _CHUNK_BYTES):
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
            return _read(temporary)
    except OSError as error:
        raise UsageError(
            f"the disk can't be tried in {shown_path(folder)}: {error.strerror}; name a large file with --file."
        ) from None


def _read(path: Path) -> DiskReading:
    buffer = bytearray(_CHUNK_BYTES)
    rates = []
    try:
        with path.open("rb", buffering=0) as stream:
            size = min(os.fstat(stream.fileno()).st_size, _MOST_BYTES)
            if size < _LEAST_BYTES:
                raise UsageError(
                    f"--file {shown_path(path)} has {format_bytes(size)}; a read of less than"
                    f" {format_bytes(_LEAST_BYTES)} says nothing about a disk."
                )
            cached = _forget(stream.fileno(), size)
            for _ in range(size // _SAMPLE_BYTES):
                began_s = time.perf_counter()
                done = 0
                while done < _SAMPLE_BYTES:
                    done += stream.readinto(buffer) or 0
                rates.append(done / (time.perf_counter() - began_s))
    except OSError as error:
        raise UsageError(
            f"{shown_path(path)} can't be read: {error.strerror}; name another file with --file."
        ) from None
    return DiskReading(bytes_per_s=tuple(rates), cached=cached, path=path)


def _forget(descriptor: int, size: int) -> bool | None:
    """Asks the page cache to forget the file; returns whether it still holds some of it, None when unknown."""
    if not hasattr(os, "posix_fadvise"):
        return None
    with contextlib.suppress(OSError):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    if not hasattr(os, "RWF_NOWAIT"):
        return None
    byte = bytearray(1)
    try:
        for place in range(0, size, size // 16):
            try:
                os.preadv(descriptor, [byte], place, os.RWF_NOWAIT)  # answers only from memory
                return True
            except BlockingIOError:
                continue
    except OSError:  # a file system that doesn't know the question
        return None
    return False
