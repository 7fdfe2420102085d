"""A file of prompts: one a line."""

from __future__ import annotations

from pathlib import Path

from roost.errors import InvalidFile
from roost.probes.regular_files import open_regular
from roost.shell import shown_path
from roost.units import format_bytes

MAX_BYTES = 16 * 1024**2


def read_prompts(path: str | Path) -> tuple[str, ...]:
    """The prompts of a UTF-8 file, one a line; blank lines and lines that start with # don't count.

    Raises InvalidFile for a file that can't be read, isn't UTF-8, is larger than 16 MiB or holds no prompt.
    """
    with open_regular(str(path), str(path)) as file:
        if file.bytes > MAX_BYTES:
            raise InvalidFile(
                f"{shown_path(path)} has {format_bytes(file.bytes)}, too much for prompts; give one a line."
            )
        raw = file.read_at(0, file.bytes)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidFile(f"{shown_path(path)} is not UTF-8 in line {line}; save it as UTF-8.") from None
    lines = (line.strip() for line in text.split("\n"))
    prompts = tuple(line for line in lines if line and not line.startswith("#"))
    if not prompts:
        raise InvalidFile(f"{shown_path(path)} holds no prompt; write one a line, without # before it.")
    return prompts
