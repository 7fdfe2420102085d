"""How a sweep looks to a person: a table, and its seconds as bars."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from roost.api.plans.sweep import Sweep, SweepPoint
from roost.cli.screen import show_folded, show_table, show_text
from roost.plan.figures import Predicted
from roost.plan.schema import ComponentPlan, PlanDocument
from roost.units import format_seconds

_BAR = 40
_SHORT_NAMES = {"transformer": "dit", "unet": "unet", "text_encoder": "te", "image_encoder": "ie"}
_SHORT_STRATEGIES = {"resident": "stays", "snapshot-offload": "snapshot", "component-offload": "moved", "fsdp": "fsdp"}
_HEADINGS = {"vram": "VRAM", "ram": "RAM", "size": "Size", "batch": "Batch"}


def show_sweep(sweep: Sweep, points: Sequence[SweepPoint]) -> None:
    """One row a value, then a bar for each of the seconds in all, loading included."""
    model = points[0].plan.model
    show_text(f"{model.pipeline} · {model.family or 'unknown family'} on {points[0].plan.machine.gpu.name}")
    with_next = any(_differs(each.plan) for each in points)
    headings = (_HEADINGS[sweep.what], *_seconds(sweep, with_next), "Limited by", "Placement")
    show_table(headings, [_row(sweep, each, with_next) for each in points], numbers=range(len(headings) - 2))
    _show_bars(points)


def _seconds(sweep: Sweep, with_next: bool) -> dict[str, Callable[[SweepPoint, Predicted], float | None]]:
    """The columns of seconds, by their headings."""
    columns: dict[str, Callable[[SweepPoint, Predicted], float | None]] = {
        "Load": lambda _, predicted: predicted.load_s.mid,
        "First": lambda _, predicted: predicted.first_s.mid,
        "Next": lambda _, predicted: predicted.next_s.mid,
        "An output": lambda point, _: point.output_s,
        "A step": lambda _, predicted: predicted.step_s.mid,
    }
    left_out = {*(() if with_next else ("Next",)), *(() if sweep.what == "batch" else ("An output",))}
    return {heading: column for heading, column in columns.items() if heading not in left_out}


def _differs(plan: PlanDocument) -> bool:
    """Whether a later generation takes visibly other time than the first."""
    predicted = plan.predicted
    return bool(
        predicted and plan.fits and abs(predicted.next_s.mid - predicted.first_s.mid) > 0.01 * predicted.first_s.mid
    )


def _row(sweep: Sweep, point: SweepPoint, with_next: bool) -> tuple[str, ...]:
    columns, predicted = _seconds(sweep, with_next), point.plan.predicted
    if not point.plan.fits or predicted is None:
        return (point.label, *("-" for _ in columns), "-", "-")
    seconds = (format_seconds(column(point, predicted)) for column in columns.values())
    return (point.label, *seconds, predicted.limiter, placement_in_short(point.plan))


def placement_in_short(plan: PlanDocument) -> str:
    """``dit 12/40 · te snapshot · vae tiled``: components of one treatment together."""
    names: dict[str, list[str]] = {}
    for name in plan.load_order:
        names.setdefault(_treatment(plan.components[name]), []).append(_short_name(name))
    return " · ".join(f"{'+'.join(each)} {treatment}" for treatment, each in names.items())


def _short_name(name: str) -> str:
    base, _, number = name.rpartition("_")
    return f"{_SHORT_NAMES.get(base, base)}{number}" if number.isdigit() else _SHORT_NAMES.get(name, name)


def _treatment(component: ComponentPlan) -> str:
    blocks = sum(stack.count for stack in component.stacks)
    if component.strategy == "layerwise-offload":
        where = (
            "held"
            if component.hold
            else f"{component.resident_blocks}/{blocks}{' layers' if component.leaf_level else ''}"
        )
    else:
        where = _SHORT_STRATEGIES[component.strategy]
    return f"{where} tiled" if component.tiling else where


def _show_bars(points: Sequence[SweepPoint]) -> None:
    """Plain characters in a pipe, blocks on a terminal."""
    seconds = [each.plan.predicted.total_s.mid if each.plan.fits and each.plan.predicted else None for each in points]
    longest = max((each for each in seconds if each is not None), default=0.0)
    width, mark = max(len(each.label) for each in points), "█" if sys.stdout.isatty() else "#"
    if longest:
        generations = points[0].plan.policy.generations
        show_text(f"load and {generations} generation{'s' if generations > 1 else ''}")
    for point, taken in zip(points, seconds, strict=True):
        if taken is None:
            budget = point.plan.budget
            beside = budget.verdict_alone if budget.lacks is None else f"does not fit: {budget.lacks}"
        else:
            beside = f"{mark * max(1, round(_BAR * taken / longest))} {format_seconds(taken)}"
        show_folded(f"{point.label.rjust(width)}  {beside}", hanging=width + 2)
