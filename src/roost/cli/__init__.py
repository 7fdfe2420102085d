"""The command line: commands translate arguments and show results; everything else is behind ``roost.api``."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Runs the command line and exits with its documented code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that can't show a character gets its escape
            stream.reconfigure(errors="backslashreplace")
    try:
        from roost.cli.app import run  # imported here: an interrupt during the imports ends as quietly as a later one
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))
