"""What people read and paste: commands as a shell takes them, paths as they were typed."""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path

from roost.errors import RoostError, UsageError

_DISK_FAILS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)

# A longer word would be cut where it is shown, and a cut command is worse than one to complete.
_LONGEST_WORD = 300
_TOO_LONG = "PATH"


def command(*words: str | Path) -> str:
    """The words as one line to paste into a POSIX shell. A Path never passes for an option.

    What a terminal can't show is written as the shell's own escapes; a path too long to be shown stands as ``PATH``.
    """
    return " ".join(_word(word) for word in words)


def _word(word: str | Path) -> str:
    text = str(word)
    if isinstance(word, Path) and text.startswith("-"):
        text = os.path.join(os.curdir, text)
    if len(text) > _LONGEST_WORD:
        return _TOO_LONG
    return shlex.quote(text) if text.isprintable() else _escaped_for_bash(text)


def _escaped_for_bash(text: str) -> str:
    """``$'…'``, which bash, zsh and ksh read; three octal digits a byte, so that none after it joins."""
    parts = []
    for char in text:
        if char in "\\'":
            parts.append(f"\\{char}")
        elif char.isprintable():
            parts.append(char)
        else:
            parts.append("".join(f"\\{byte:03o}" for byte in os.fsencode(char)))
    return f"$'{''.join(parts)}'"


def shown_path(path: str | Path) -> str:
    r"""A path in quotes, whole and as it is (one ``\`` is one ``\``); only what a terminal can't show is escaped."""
    text = str(path)
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return f'"{shown}"' if "'" in text and '"' not in text else f"'{shown}'"


def unwritable(path: str | Path, error: Exception, remedy: str) -> RoostError:
    """What to raise when ``path`` can't be written: UsageError for the place, RoostError for a disk that fails."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    kind = RoostError if getattr(error, "errno", None) in _DISK_FAILS else UsageError
    return kind(f"can't write {shown_path(path)}: {reason}; {remedy}.")
