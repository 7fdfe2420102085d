"""The command line: commands translate arguments and show results; everything else is behind ``roost.api``."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Runs the command line and exits with its documented code."""
    from roost.cli.app import run  # imported here: shell completion and errors need a started interpreter only

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that can't show a character gets its escape
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
