"""``roost diff``: what changed from one plan to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roost.cli.options import Json
from roost.cli.screen import rate_name, rate_value, show_json, show_table, show_text
from roost.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from roost.api.plans.diff import Difference, PlanDifferences

Before = Annotated[Path, typer.Argument(metavar="A", help="A plan's YAML file.")]
After = Annotated[Path, typer.Argument(metavar="B", help="The plan to compare it with.")]

_LONGEST = 24  # characters of a value: fingerprints and file lists say nothing beyond


def diff(before: Before, after: After, as_json: Json = False) -> None:
    """Compare two plans: what they are for, what they decide, what they predict, and what led there.

    roost diff wan.yaml wan-16gib.yaml
    """
    from roost.api.plans.diff import diff_plans
    from roost.api.plans.plan_files import load_plan

    differences = diff_plans(load_plan(before), load_plan(after))
    if as_json:
        show_json({"schema": 1, "before": str(before), "after": str(after), **asdict(differences)})
    else:
        _show(differences)


def _show(differences: PlanDifferences) -> None:
    others = [
        name
        for name, same in (
            ("model", differences.same_model),
            ("workload", differences.same_workload),
            ("machine", differences.same_machine),
        )
        if not same
    ]
    if others:
        show_text(f"these plans are not for the same {' and '.join(others)}:")
        _show_table(differences.subjects)
    if differences.decisions:
        show_text("decisions:")
        _show_table(differences.decisions)
    else:
        show_text("no decision differs.")
    for heading, found in (("figures:", differences.figures), ("what may have led there:", differences.causes)):
        if found:
            show_text(heading)
            _show_table(found)


def _show_table(differences: Sequence[Difference]) -> None:
    show_table(
        ("", "", "A", "B", "Change"),
        [
            (each.about, _named(each), _shown(each, each.before), _shown(each, each.after), _change(each))
            for each in differences
        ],
        numbers=(2, 3, 4),
    )


def _named(difference: Difference) -> str:
    if difference.unit == "rate":
        return rate_name(difference.what)
    return difference.what.removesuffix("_bytes").removesuffix("_per_s").removesuffix("_s").replace("_", " ")


def _shown(difference: Difference, value: object) -> str:
    if value is None:
        return "–"
    if difference.unit == "bytes" and isinstance(value, int):
        return format_bytes(value)
    if difference.unit == "seconds" and isinstance(value, float):
        return format_seconds(value)
    if difference.unit == "rate" and isinstance(value, float):
        return rate_value(difference.what, value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.4g}" if isinstance(value, float) else str(value) or "nothing"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _change(difference: Difference) -> str:
    """How much more or less, for what has a unit and both plans have."""
    before, after = difference.before, difference.after
    if difference.unit is None or not isinstance(before, int | float) or not isinstance(after, int | float):
        return ""
    sign, size = ("+" if after > before else "−"), abs(after - before)
    amount = _shown(difference, round(size) if difference.unit == "bytes" else float(size))
    return f"{sign}{amount}" + (f" ({sign}{size / before:.1%})" if before else "")
