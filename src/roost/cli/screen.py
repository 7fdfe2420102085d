"""What every command prints with: safe text, one-line errors, and tables that are plain text in a pipe."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Literal, TextIO

from roost.facts.rates import ARITHMETIC, RateKey
from roost.units import format_rate

# Characters; what a person typed or a model holds may have any length.
_LONGEST_WORD, _LONGEST_ERROR = 300, 2000
_WIDTH = 80
_shows = {"notes": True}


def clean(text: object) -> str:
    """``text`` on one line with everything unprintable escaped: names from a model may hold terminal codes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text))


def show_error(message: str) -> None:
    # Only line ends fold: a path in a command to type may hold two spaces in a row.
    line = " ".join(part.strip() for part in message.splitlines())
    words = (_shortened(clean(word), _LONGEST_WORD) for word in line.split(" "))
    _say(f"error: {_shortened(' '.join(words), _LONGEST_ERROR)}")


def _shortened(text: str, most: int) -> str:
    """``text`` with its middle left out when it is too long: what it is about stands first, the remedy last."""
    return text if len(text) <= most else f"{text[: most * 3 // 4]}…{text[-(most // 4) :]}"


def show_note(message: str) -> None:
    """A line for the person, beside the result: on stderr."""
    if _shows["notes"]:
        _say(clean(message))


@contextmanager
def showing(everything: bool) -> Iterator[None]:
    """Meanwhile shows only errors, unless ``everything``: another process of the same run shows the rest."""
    if everything:
        yield
        return
    before, _shows["notes"] = _shows["notes"], False
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        _shows["notes"] = before


def _say(line: str) -> None:
    """On stderr, if it takes anything: the result and the exit code don't hang on that."""
    try:
        print(line, file=sys.stderr)  # noqa: T201
    except OSError:
        flush_or_drop(sys.stderr)


def flush_or_drop(stream: TextIO) -> None:
    """Writes out what ``stream`` holds; what can't be written is dropped, so that it doesn't fail again at exit."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


def show_text(text: str = "") -> None:
    print(clean(text))  # noqa: T201


def show_folded(text: str, indent: str = "", hanging: int = 2) -> None:
    """A paragraph as wide as a terminal usually is; later lines stand ``hanging`` characters further in."""
    later = " " * (len(indent) + hanging)
    lines = textwrap.wrap(clean(text), _WIDTH, initial_indent=indent, subsequent_indent=later, break_on_hyphens=False)
    for line in lines:
        show_text(line)


def show_labelled(label: str, text: str) -> None:
    """A paragraph after its label, as wide as a terminal usually is; commands to type stay in one piece."""
    words = f"{label} {clean(text)}".strip()
    for line in textwrap.wrap(words, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False):
        show_text(line)


def show_json(document: object) -> None:
    print(json.dumps(document, ensure_ascii=True, allow_nan=False))  # noqa: T201


def show_table(headings: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[int] = ()) -> None:
    """A table; columns listed in ``numbers`` are aligned to the right."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _show_rich_table(headings, cells, numbers)
        return
    widths = [max(len(line[column]) for line in [list(headings), *cells]) for column in range(len(headings))]
    for line in [list(headings), *cells]:
        padded = [
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(padded).rstrip())  # noqa: T201


def _show_rich_table(headings: Sequence[str], cells: Sequence[Sequence[str]], numbers: Sequence[int]) -> None:
    from rich.console import Console  # imported here: only a terminal needs it
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column, heading in enumerate(headings):
        justify: Literal["left", "right"] = "right" if column in numbers else "left"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=column == 0)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


# Rates by their names in a file, for people. One that a newer version wrote has neither text nor unit.


_RATES: dict[str, str] = {
    RateKey.MATMUL: "matmul",
    RateKey.ATTENTION: "attention",
    RateKey.CONV: "conv",
    RateKey.SINGLE_MATMUL: "float32 matmul",
    RateKey.SINGLE_ATTENTION: "float32 attention",
    RateKey.SINGLE_CONV: "float32 conv",
    RateKey.MEMORY: "memory",
    RateKey.KERNELS: "kernels",
    RateKey.PINNED_H2D: "pinned h2d",
    RateKey.PINNED_D2H: "pinned d2h",
    RateKey.PAGEABLE_H2D: "pageable h2d",
    RateKey.PAGEABLE_D2H: "pageable d2h",
    RateKey.DISK: "disk",
    RateKey.PIN: "pin",
    RateKey.CAST: "cast",
}


def rate_name(name: str) -> str:
    """``float32 matmul`` for ``RateKey.SINGLE_MATMUL``."""
    return _RATES.get(name, name)


def rate_value(name: str, per_s: float) -> str:
    """The figure with its unit."""
    countable = name == RateKey.KERNELS or name not in _RATES
    return format_rate(per_s, "FLOP" if name in ARITHMETIC else "" if countable else "B")


def off_by(spread: float, down: float | None = None) -> str:
    """How far off a rate may be; ``down`` is how much slower, where that differs."""
    return f"× {spread:.3g}" if down in (None, spread) else f"÷ {down:.3g}, × {spread:.3g}"
