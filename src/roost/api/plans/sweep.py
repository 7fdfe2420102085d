"""Sweeps: the same question under a row of memory budgets, sizes or batches, each planned by the search."""

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
from roost.planner.by_search import plan_by_search
from roost.planner.search_question import SearchQuestion
from roost.units import format_bytes, parse_bytes, parse_size

Swept = Literal["vram", "ram", "size", "batch"]
Value = int | tuple[int, int]

_MOST_POINTS = 100
_EXAMPLES = "vram=8GiB:48GiB:4GiB, ram=32GiB,64GiB, size=832x480,1280x720 or batch=1,2,4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What is varied. Values are bytes, (width, height), or outputs of one call."""

    what: Swept
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """One value and its plan, which may not fit."""

    what: Swept
    value: Value
    plan: PlanDocument

    @property
    def label(self) -> str:
        """The value as people read it."""
        if self.what == "batch":
            return f"batch {self.value}"
        return format_bytes(self.value) if isinstance(self.value, int) else "{}x{}".format(*self.value)

    @property
    def output_s(self) -> float | None:
        """Seconds of a later generation for each of its outputs; None where nothing fits."""
        if self.plan.predicted is None or not self.plan.fits:
            return None
        return self.plan.predicted.next_s.mid / self.plan.workload.batch


def parse_sweep(text: str) -> Sweep:
    """``vram=FIRST:LAST:STEP``, ``ram=SIZE,SIZE``, ``size=WxH,WxH`` or ``batch=N,N``; raises UsageError for others."""
    what, equals, values = text.partition("=")
    what = what.strip().lower()
    if not equals or what not in get_args(Swept):
        raise UsageError(f"--sweep {text!r} is not known; write it like {_EXAMPLES}.")
    option = f"sweep {what}"
    if what == "size":
        return Sweep(what="size", values=tuple(dict.fromkeys(parse_size(each, option) for each in values.split(","))))
    if what == "batch":
        return Sweep(what="batch", values=tuple(dict.fromkeys(_count(each) for each in values.split(","))))
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


def _count(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise UsageError(f"--sweep batch={text.strip()} is no number of outputs; write it like batch=1,2,4,8.")
    return int(text)


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
    if getattr(options, sweep.what) != getattr(PlanOptions(), sweep.what):
        raise UsageError(f"--sweep {sweep.what} and --{sweep.what} both set it; leave one out.")
    changed = _changed_memory if sweep.what in ("vram", "ram") else _changed_workload
    return changed(model, options, sweep)


def _changed_workload(model: str | Path, options: PlanOptions, sweep: Sweep) -> Iterator[SweepPoint]:
    for value in sweep.values:
        if sweep.what == "size":
            changed = replace(options, size=cast(tuple[int, int], value))
        else:
            changed = replace(options, batch=cast(int, value))
        asked = search_question(model, changed)
        yield SweepPoint(what=sweep.what, value=value, plan=plan_by_search(_as_run(asked)))


def _changed_memory(model: str | Path, options: PlanOptions, sweep: Sweep) -> Iterator[SweepPoint]:
    asked = None
    for value in sweep.values:
        bytes_there = cast(int, value)
        at_value = replace(options, vram=bytes_there) if sweep.what == "vram" else replace(options, ram=bytes_there)
        asked = search_question(model, at_value) if asked is None else _on_machine(asked, at_value)
        yield SweepPoint(what=sweep.what, value=value, plan=plan_by_search(_as_run(asked)))


def _as_run(asked: SearchQuestion) -> SearchQuestion:
    """As ``plan_model`` asks, but for what would fit where nothing does."""
    return replace(asked, seek_remedies=False, gives_back=True)


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


def _plain(value: Value) -> int | str:
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
        "output_s": point.output_s,
        "limiter": predicted and predicted.limiter,
        "components": {
            name: {"strategy": each.strategy, "resident_blocks": each.resident_blocks, "tiling": each.tiling}
            for name, each in plan.components.items()
        }
        if plan.fits
        else None,
        "missing": None if plan.fits else plan.budget.verdict,
    }
