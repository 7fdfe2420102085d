"""Bytes and seconds inside; GiB, ms and GB/s only where a person reads or types them."""

from __future__ import annotations

import math
import re

from roost.errors import UsageError
from roost.option_spelling import given

KiB, MiB, GiB = 1024, 1024**2, 1024**3

# "GB" is decimal; "GiB" and the bare "G" are binary.
_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS[_letter] = _UNITS[f"{_letter}ib"] = 1024**_power
    _UNITS[f"{_letter}b"] = 1000**_power

_LEAST_PLAIN_BYTES = 1000  # whoever types less has forgotten the unit

_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE | re.ASCII)
_SIZE = re.compile(r"(\d{1,5})[x×](\d{1,5})", re.IGNORECASE | re.ASCII)  # people type both


def parse_bytes(text: str, option: str) -> int:
    """``24GiB``, ``24G``, ``24GB`` or a plain number of bytes, as bytes; the error names the ``option``."""
    match = _BYTES.fullmatch(text.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None or float(match[1]) * unit >= 2**63:
        raise UsageError(f"{given(option, text)} is not a size in bytes; write it like 24GiB, 24GB or 512MiB.")
    if not match[2] and 0 < float(match[1]) < _LEAST_PLAIN_BYTES:
        raise UsageError(f"{given(option, text)} would be {match[1]} bytes; give its unit, like {match[1]}GiB.")
    return round(float(match[1]) * unit)


def parse_size(text: str, option: str = "size") -> tuple[int, int]:
    """``1280x720`` as (width, height) in pixels."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or not int(match[1]) or not int(match[2]):
        raise UsageError(f"{given(option, text)} is not a picture size; write width x height like 1280x720.")
    return int(match[1]), int(match[2])


def format_bytes(count: int | None) -> str:
    """Three or four significant figures: ``14.2 GiB``, ``512 MiB``; ``?`` when unknown."""
    if count is None:
        return "?"
    if count < 0:
        return f"−{format_bytes(-count)}"
    for unit, name in ((GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")):
        if count >= unit:
            value = count / unit
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {name}"
    return f"{count} B"


def format_seconds(seconds: float | None) -> str:
    """``340 ms``, ``12.3 s``, ``4 min 05 s``; ``?`` when unknown."""
    if seconds is None:
        return "?"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def format_measured(seconds: float, like: float | None = None, figures: int = 4) -> str:
    """With ``figures`` significant figures, in ms below a second: ``412.3 ms``, ``16.52 s``.

    ``like`` lends its unit and decimals, so that figures beside each other can be compared.
    """
    like = seconds if like is None else like
    scale, unit = (1000, "ms") if like < 1 else (1, "s")
    places = figures - 1 - math.floor(math.log10(like * scale)) if like > 0 else 0
    return f"{seconds * scale:.{max(0, places)}f} {unit}"


def format_rate(per_s: float, unit: str) -> str:
    """``165.2 TFLOP/s``, ``25.1 GB/s``, ``142,857 /s``: ``unit`` is ``FLOP``, ``B`` or nothing."""
    if not unit:
        return f"{per_s:,.0f} /s"
    if unit == "FLOP" and per_s >= 1e12:
        return f"{per_s / 1e12:.1f} TFLOP/s"
    value = per_s / 1e9
    return f"{value:.{1 if value >= 10 or unit == 'FLOP' else 2}f} G{unit}/s"
