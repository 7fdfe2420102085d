"""Sweeps: the same question under a row of memory budgets or picture sizes, each planned by the search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

from roost.api.machine import find_machine
from roost.api.plans.plan import search_question
from roost.api.requests.option_sets import PlanOptions
from roost.api.requests.options import searches
from roost.errors import UsageError
from roost.plan import PlanDocument
from roost.planner.by_search import SearchQuestion, plan_by_search
from roost.units import format_bytes, parse_bytes, parse_size

Swept = Literal["vram", "ram", "size"]

_MOST_POINTS = 100
_EXAMPLES = "vram=8GiB:48GiB:4GiB, ram=32GiB,64GiB or size=832x480,1280x720"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What is varied. Values are bytes, or (width, height)."""

    what: Swept
    values: tuple[int | tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """One value and its plan, which may not fit."""

    value: int | tuple[int, int]
    plan: PlanDocument

    @property
    def label(self) -> str:
        """The value as people read it."""
        return format_bytes(self.value) if isinstance(self.value, int) else "{}x{}".format(*self.value)


def parse_sweep(text: str) -> Sweep:
    """``vram=FIRST:LAST:STEP``, ``ram=SIZE,SIZE`` or ``size=WxH,WxH``; raises UsageError for anything else."""
    what, equals, values = text.partition("=")
    what = what.strip().lower()
    if not equals or what not in get_args(Swept):
        raise UsageError(f"--sweep {text!r} is not known; write it like {_EXAMPLES}.")
    option = f"sweep {what}"
    if what == "size":
        return Sweep(what="size", values=tuple(dict.fromkeys(parse_size(each, option) for each in values.split(","))))
    parts = values.split(":")
    if len(parts) == 1:
        found = tuple(dict.fromkeys(parse_bytes(each, option) for each in values.split(",")))
    else:
        found = _steps(text, [parse_bytes(each, option) for each in parts])
    if len(found) > _MOST_POINTS:
        raise UsageError(f"--sweep {text!r} has more than {_MOST_POINTS} points; take a larger step.")
    if min(found) <= 0:
        raise UsageError(f"--sweep {text!r} begins at nothing; begin with some memory, like {_EXAMPLES}.")
    return Sweep(what=cast(Swept, what), values=found)


def _steps(text: str, parts: list[int]) -> tuple[int, ...]:
    if len(parts) != 3:
        raise UsageError(f"--sweep {text!r} needs first, last and step, like vram=8GiB:48GiB:4GiB.")
    first, last, step = parts
    if step <= 0 or last < first:
        raise UsageError(
            f"--sweep {text!r} has no points; give first, last and a step above 0, like vram=8GiB:48GiB:4GiB."
        )
    return tuple(first + step * index for index in range(min((last - first) // step, _MOST_POINTS) + 1))


def sweep_model(model: str | Path, options: PlanOptions, sweep: Sweep) -> Iterator[SweepPoint]:
    """The plan for each value, in their order; memory sweeps share one dry run.

    Raises UsageError as ``plan_model`` does, and for an option that the sweep itself sets.
    """
    if not searches(options):
        raise UsageError("--sweep compares seconds, which the rules don't predict; leave --policy rules out.")
    if getattr(options, sweep.what) is not None:
        raise UsageError(f"--sweep {sweep.what} and --{sweep.what} both set it; leave one out.")
    changed = _changed_sizes if sweep.what == "size" else _changed_memory
    return changed(model, options, sweep)


def _changed_sizes(model: str | Path, options: PlanOptions, sweep: Sweep) -> Iterator[SweepPoint]:
    for value in sweep.values:
        asked = search_question(model, replace(options, size=cast(tuple[int, int], value)))
        yield SweepPoint(value=value, plan=plan_by_search(replace(asked, seek_remedies=False)))


def _changed_memory(model: str | Path, options: PlanOptions, sweep: Sweep) -> Iterator[SweepPoint]:
    asked = None
    for value in sweep.values:
        bytes_there = cast(int, value)
        at_value = replace(options, vram=bytes_there) if sweep.what == "vram" else replace(options, ram=bytes_there)
        asked = search_question(model, at_value) if asked is None else _on_machine(asked, at_value)
        yield SweepPoint(value=value, plan=plan_by_search(replace(asked, seek_remedies=False)))


def _on_machine(asked: SearchQuestion, options: PlanOptions) -> SearchQuestion:
    """The same question, trace and rates on a machine with other memory."""
    machine = find_machine(options.gpu, options.vram, options.ram, options.headroom, options.pinned_max)
    return replace(asked, question=replace(asked.question, machine=machine))


def sweep_document(sweep: Sweep, points: Sequence[SweepPoint]) -> dict[str, object]:
    """The sweep as ``--json`` prints it: bytes as ints, seconds as floats, nulls where nothing fits."""
    return {
        "schema": 1,
        "sweep": {"what": sweep.what, "values": [_plain(each) for each in sweep.values]},
        "points": [_point(each) for each in points],
    }


def _plain(value: int | tuple[int, int]) -> int | str:
    return value if isinstance(value, int) else "{}x{}".format(*value)


def _point(point: SweepPoint) -> dict[str, object]:
    plan, predicted = point.plan, point.plan.predicted if point.plan.fits else None
    return {
        "value": _plain(point.value),
        "fits": plan.fits,
        "budget_bytes": plan.budget.budget_bytes,
        "host_bytes": predicted and predicted.host_bytes,
        "peak_bytes": predicted and predicted.peak_bytes.mid,
        "load_s": predicted and predicted.load_s.mid,
        "first_s": predicted and predicted.first_s.mid,
        "next_s": predicted and predicted.next_s.mid,
        "step_s": predicted and predicted.step_s.mid,
        "total_s": predicted and predicted.total_s.mid,
        "limiter": predicted and predicted.limiter,
        "components": {
            name: {"strategy": each.strategy, "resident_blocks": each.resident_blocks, "tiling": each.tiling}
            for name, each in plan.components.items()
        }
        if plan.fits
        else None,
        "missing": None if plan.fits else plan.budget.verdict,
    }
