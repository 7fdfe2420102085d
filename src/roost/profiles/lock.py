"""One writer at a time, among processes of this machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roost.errors import RoostError
from roost.shell_quoting import shown_path

_PATIENCE_S = 10.0
_PAUSE_S = 0.02


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file ``path``, whose folder exists; the system lets it go when its process dies.

    Raises RoostError when another process holds it for ten seconds, OSError when the file can't be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _wait(descriptor, path)
        yield
    finally:
        os.close(descriptor)  # closing lets the lock go


def _wait(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not _taken(descriptor):
        if time.monotonic() > deadline:
            raise RoostError(f"another process has held {shown_path(path)} for {_PATIENCE_S:.0f} s; try again later.")
        time.sleep(_PAUSE_S)


if sys.platform == "win32":
    import msvcrt

    def _taken(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _taken(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
