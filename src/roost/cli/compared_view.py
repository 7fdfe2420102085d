"""How a prediction looks beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from roost.cli.screen import show_folded, show_table, show_text
from roost.units import format_bytes, format_seconds

_SECONDS = {"load_s": "load", "first_s": "first generation", "next_s": "next generation", "step_s": "a step"}


def show_compared(compared: Mapping[str, Any], *, emulated: bool) -> None:
    """One row for each figure that was both predicted and measured, and what becomes of it."""
    rows = [
        _row(words, compared[name], format_seconds, compared[name])
        for name, words in _SECONDS.items()
        if compared[name] is not None
    ]
    for stage in compared["stages"]:
        pair = {"predicted": stage["predicted_peak_bytes"], "measured": stage["measured_peak_bytes"]}
        rows.append(_row(f"peak in {stage['name']}", pair, format_bytes))
    show_table(("Compared", "Predicted", "Between", "Measured", "Ratio"), rows, numbers=(1, 3, 4))
    if emulated:
        show_folded("emulated: peaks compare as on a GPU; how fast this CPU is, only runs can tell the next plan")
    if compared["kept"]:
        show_text("kept: the next plan of this model on this device uses it (roost profiles)")
    else:
        show_folded(f"not kept for the next plan: {compared['why_not']}")


def _row(
    words: str, pair: Mapping[str, Any], shown: Callable[[Any], str], ends: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    between = f"{shown(ends['low'])} to {shown(ends['high'])}" if ends else ""
    ratio = f"{pair['measured'] / pair['predicted']:.2f}" if pair["predicted"] else "–"
    return words, shown(pair["predicted"]), between, shown(pair["measured"]), ratio
