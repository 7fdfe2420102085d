"""Places to write to: looked at before slow work begins, and made when it does."""

from __future__ import annotations

import os
from pathlib import Path

from roost.errors import UsageError
from roost.shell_quoting import shown_path, unwritable

# Prompt, seed and batch numbers and what a temporary name adds still fit into 255 bytes.
_LONGEST_NAME = 180


def check_output(path: Path, option: str = "-o") -> None:
    """Raises UsageError, before slow work, for a place that ``option`` names and that can't hold a file.

    Folders that aren't there yet are no problem where they can be made.
    """
    if len(os.fsencode(path.name)) > _LONGEST_NAME or "\0" in str(path):
        problem = "its name is no file name"
    elif os.path.exists(path) and not os.path.isfile(path):
        problem = "it is not a regular file"
    else:
        problem = _problem_of(path.absolute().parent) or ""
    if problem:
        raise UsageError(f"can't write {shown_path(path)}: {problem}; choose another place with {option}.")


def _problem_of(folder: Path) -> str | None:
    """Why no file can be written into ``folder``, which may not be there yet."""
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        if len(os.fsencode(there.name)) > _LONGEST_NAME:
            return "the name of a folder in it is no file name"
        there = there.parent
    if not os.path.isdir(there):
        return f"{shown_path(there)} is not a folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"the folder {shown_path(there)} can't be written"
    return None


def make_folder_for(path: Path, option: str = "-o") -> None:
    """Makes the folder that ``path`` is to be written to, unless it is there; UsageError or RoostError if it can't."""
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error, f"choose another place with {option}") from None


def check_trace_path(path: Path | None) -> None:
    """Raises UsageError for a file that a trace could not be written to at the end of a run."""
    if path is None:
        return
    if path.suffix.lower() != ".json":
        raise UsageError(f"--trace-out {shown_path(path)}: a trace is written as .json; name it like trace.json.")
    check_output(path, "--trace-out")
