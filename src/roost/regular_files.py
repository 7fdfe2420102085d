"""Files of the user's own folders, read as files alone: a pipe would be waited for, a device never ends."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_OPEN = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _OPEN |= getattr(os, _flag, 0)


def read_regular(path: Path, most: int) -> bytes:
    """At most so many bytes of the file; OSError, ValueError for a name that is no path, for anything but a file."""
    with os.fdopen(os.open(path, _OPEN), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return stream.read(most)
