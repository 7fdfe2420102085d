"""The command line: commands translate arguments and show results; everything else is behind ``roost.api``."""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Runs the command line and exits with its documented code."""
    _open_closed_streams()
    os.environ["HF_HUB_OFFLINE"] = "1"  # before a library reads it: no command needs the network
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that can't show a character gets its escape
            stream.reconfigure(errors="backslashreplace")
    try:
        from roost.cli.app import run  # imported here: an interrupt during the imports ends as quietly as a later one
    except KeyboardInterrupt:
        _forget_interrupt()
        sys.exit(130)
    code = run(sys.argv[1:])
    _forget_interrupt()
    sys.exit(code)


def _forget_interrupt() -> None:
    """Makes the exit code count also after an interrupt inside ``exec``, which libraries use while they are imported.

    CPython keeps a mark of such an interrupt, handled or not, ends by the signal for it, and takes it off at the next
    text that it runs.
    """
    exec("")


def _open_closed_streams() -> None:
    """A shell may close stdout or stderr (``>&-``); Python has None then, and the next file would take its number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_WRONLY)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8"))
