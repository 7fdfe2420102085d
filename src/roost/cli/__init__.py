"""The command line: commands translate arguments, views show results; everything else is behind ``roost.api``.

Rooms within: ``screen`` → ``options`` → ``views``, ``html`` → ``commands`` → ``app``.
"""

from __future__ import annotations

import io
import os
import sys

from roost.allocator_settings import allocator_settings


def main() -> None:
    """Runs the command line and exits with its documented code."""
    _open_closed_streams()
    os.environ["HF_HUB_OFFLINE"] = "1"  # before a library reads it: no command needs the network
    os.environ |= allocator_settings(os.environ)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that can't show a character gets its escape
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run()
    except KeyboardInterrupt:
        code = 130
    _forget_interrupt()
    sys.exit(code)


def _run() -> int:
    from roost.cli.endings import endings  # all imported here: an interrupt meanwhile ends as quietly as a later one

    endings.catch()
    try:
        from roost.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = endings.exit_code
    endings.ignore()
    from roost.cli.screen import flush_or_drop

    for stream in (sys.stdout, sys.stderr):
        flush_or_drop(stream)
    return code


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
