"""The SHA-256 of a regular file's content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from roost.probes.regular_files import open_regular

_CHUNK_BYTES = 16 * 1024**2


def sha256_of(path: Path) -> str:
    """Hex digits; raises InvalidFile for what is no regular file or can't be read."""
    digest = hashlib.sha256()
    with open_regular(str(path), str(path)) as file:
        for offset in range(0, file.bytes, _CHUNK_BYTES):
            digest.update(file.read_at(offset, min(_CHUNK_BYTES, file.bytes - offset)))
    return digest.hexdigest()
