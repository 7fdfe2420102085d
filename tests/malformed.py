"""What every refusal of a malformed input has in common: its exit code, its one line, and an untouched disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from roost.cli.app import run

LONGEST_LINE = 600


def refused(words: list[str], disk: Path, capfd, *, code: int = 2) -> str:
    """Runs the command line, checks that it refuses and leaves everything below ``disk`` alone; returns its line."""
    before = _snapshot(disk)
    capfd.readouterr()
    found = run(words)
    out, err = capfd.readouterr()
    assert (found, out) == (code, ""), (found, out, err)
    assert err.startswith("error: "), err
    assert err.endswith("\n"), err
    line = err[:-1]
    assert line.isprintable(), err
    assert len(line) <= LONGEST_LINE, line
    assert "Traceback" not in line
    assert not line.startswith("error: unexpected")
    assert _snapshot(disk) == before
    return line


def _snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """Everything below ``folder``; a folder's own time tells of files that came and went."""
    found: dict[str, tuple[int, ...]] = {}
    for parent, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            found[path] = (stat.S_IFMT(status.st_mode), status.st_size, status.st_mtime_ns, status.st_ino)
    return found
