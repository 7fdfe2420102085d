"""What would make an infeasible plan fit: single changes, each verified by searching again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from roost.facts.machine import PROCESS_BYTES, HostFacts, Machine, ram_leaving, system_bytes_of
from roost.facts.request import Choices, Workload
from roost.planner.cost.estimate import Forecast
from roost.planner.cost.fp8_storage import in_fp8
from roost.planner.placements import Lossy, place
from roost.planner.rules.case import Case
from roost.planner.rules.table import apply_rules
from roost.planner.rules.typed import dit_layerwise_option, layerwise_option, option_text, resolve
from roost.planner.search.columns import Aim, Options, limits_of, size_all
from roost.planner.search.pricing import Pricer
from roost.planner.search.search import can_fit
from roost.planner.search.shortfall import Shortfall
from roost.planner.search.smaller import AMOUNTS, Amount, amount, option, smaller
from roost.trace import Trace
from roost.units import GiB, MiB

TraceOther = Callable[[Workload], Trace | None]  # None for what can't be traced

_MOST = 5
_TRIES = 2  # a line through one point, then through two
_ROUNDED: frozenset[Lossy] = frozenset({"fp8"})
_LEAST_HEADROOM, _HEADROOM_STEP = 256 * MiB, 64 * MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What to ask for instead: options with their values, and typed ones to leave out; ``note`` is for people."""

    given: tuple[tuple[str, str], ...] = ()
    without: tuple[str, ...] = ()
    note: str = ""


def remedy_text(remedy: Remedy) -> str:
    """The change alone, for who knows no command line to make it in."""
    words = [*(f"without {each}" for each in remedy.without), *(" ".join(each) for each in remedy.given)]
    return " ".join([*words, *([f"({remedy.note})"] if remedy.note else [])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A remedy, and the question as it then is."""

    remedy: Remedy = Remedy()
    case: Case
    forecast: Forecast
    aim: Aim

    def fits(self) -> bool:
        """Whether the search then finds a plan."""
        pricer = Pricer(self.forecast)
        return can_fit(self.options(pricer), pricer, self.aim)

    def options(self, pricer: Pricer) -> Options:
        """Every component's candidates with their bytes."""
        return size_all(self.case, place(self.case, apply_rules(self.case).decisions), pricer, self.aim)


def remedies(
    case: Case, forecast: Forecast, aim: Aim, missing: Shortfall, trace_other: TraceOther | None = None
) -> tuple[Remedy, ...]:
    """The changes that fit, the cheapest loss first, a few: less typed, less asked for, then more memory.

    Where host memory is short too, each comes with as much of it as lacks.
    ``trace_other`` says what another workload does; without it none is looked at.
    """
    asked = Change(case=case, forecast=forecast, aim=aim)
    free = [
        *(
            replace(asked, remedy=remedy, case=_with_choices(case, choices))
            for remedy, choices in _fewer_options(case.choices)
        ),
        *_less_headroom(asked, missing),
        *_forbidden(asked),
        *_fp8(asked),
    ]
    if missing.also is not None:
        free = [_enlarged(change, missing.also) for change in free]
    fitting = [change.remedy for change in free if change.fits()][: _MOST - 1]
    if trace_other is not None and missing.memory == "VRAM" and missing.also is None:
        fitting += islice(_less_work(asked, trace_other), _MOST - 1 - len(fitting))
    larger = _more_memory(asked, missing)
    larger = larger if missing.also is None else _enlarged(larger, missing.also)
    return (*fitting, *([larger.remedy] if larger.fits() else []))


def _less_work(asked: Change, trace_other: TraceOther) -> Iterator[Remedy]:
    """Smaller batches, sizes and frames that fit: the largest by the traced activations, verified by a trace of it.

    Where no single one does, fewer frames of the family's smallest size.
    """
    found = {what: _least_less(asked, what, trace_other) for what in AMOUNTS}
    singly = [Remedy(given=(option(each, what),)) for what, each in found.items() if each is not None]
    yield from singly
    if not singly:
        yield from _smaller_and_shorter(asked, trace_other)


def _smaller_and_shorter(asked: Change, trace_other: TraceOther) -> Iterator[Remedy]:
    workload, family = asked.forecast.trace.workload, asked.case.profile
    small = smaller(workload, "size", 0.0, family.workload, family.sizes) if family.sizes else None
    trace = trace_other(small) if small else None
    if small is None or trace is None:
        return
    smallest = replace(asked, forecast=replace(asked.forecast, trace=trace))
    short = _least_less(smallest, "frames", trace_other)
    if short is not None:
        yield Remedy(given=(option(small, "size"), option(short, "frames")))


def _least_less(asked: Change, what: Amount, trace_other: TraceOther) -> Workload | None:
    """The largest amount that fits, found by a line through what the traced amounts need."""
    workload, family = asked.forecast.trace.workload, asked.case.profile
    known = [(1.0, _need(asked))]
    share, tried = 1 / known[0][1] if known[0][1] > 0 else 0.0, 0
    for _ in range(_TRIES):
        smaller_one = smaller(workload, what, share, family.workload, family.sizes) if share > 0 else None
        if smaller_one is None or amount(smaller_one, what) == tried:
            return None
        trace, tried = trace_other(smaller_one), amount(smaller_one, what)
        if trace is None:
            return None
        change = replace(asked, forecast=replace(asked.forecast, trace=trace))
        if change.fits():
            return smaller_one
        known.append((amount(smaller_one, what) / amount(workload, what), _need(change)))
        (one, need), (other, other_need) = known[-2:]
        if other_need <= 1:  # something else is short too, like host memory
            return None
        slope = (need - other_need) / (one - other)
        share = other - (other_need - 1) / slope if slope > 0 and math.isfinite(other_need) else 0.0
    return None


def _need(change: Change) -> float:
    """Activations over the room for them in the tightest use; infinite where weights alone are too much."""
    options = change.options(Pricer(change.forecast))
    smallest = [min(each, key=lambda one: (one.idle_bytes, one.own_bytes)) for each in options.values()]
    room_bytes = limits_of(change.forecast).vram_bytes - sum(each.idle_bytes for each in smallest)
    needs = [
        (each.own_bytes - each.held_bytes) / left if (left := room_bytes - each.held_bytes) > 0 else math.inf
        for each in smallest
    ]
    return max(needs, default=0.0)


def _fewer_options(choices: Choices) -> Iterator[tuple[Remedy, Choices]]:
    for index, choice in enumerate(choices.sets):
        if not choice.found:
            others = choices.sets[:index] + choices.sets[index + 1 :]
            yield Remedy(without=(choice.option,)), replace(choices, sets=others)
    if selection := layerwise_option(choices):
        yield Remedy(without=(selection,)), replace(choices, layerwise_components=None)
    if dit := dit_layerwise_option(choices):
        yield Remedy(without=(dit,)), replace(choices, dit_layerwise_offload=None)
    for group, value in choices.cpu_offload.items():
        rest = {name: each for name, each in choices.cpu_offload.items() if name != group}
        yield Remedy(without=(option_text(group, value),)), replace(choices, cpu_offload=rest)
    if choices.mode in ("speed", "manual"):
        yield Remedy(given=(("--mode", "auto"),)), replace(choices, mode="auto")


def _with_choices(case: Case, choices: Choices) -> Case:
    return replace(case, choices=choices, explicit=resolve(choices, case.components))


def _less_headroom(asked: Change, missing: Shortfall) -> list[Change]:
    headroom_bytes = asked.forecast.machine.headroom_bytes
    rest_bytes = (headroom_bytes - missing.short_bytes) // _HEADROOM_STEP * _HEADROOM_STEP
    if missing.memory != "VRAM" or rest_bytes < _LEAST_HEADROOM:
        return []
    machine = replace(asked.forecast.machine, headroom_bytes=rest_bytes)
    return [_on(Remedy(given=(("--headroom", f"{rest_bytes // MiB}MiB"),)), machine, asked)]


def _forbidden(asked: Change) -> list[Change]:
    """Tiling is open unless it was forbidden."""
    if "tiling" not in asked.aim.forbid or not any(each.setting == "tiled" for each in asked.forecast.trace.variants):
        return []
    aim = replace(asked.aim, forbid=asked.aim.forbid - {"tiling"})
    return [replace(asked, remedy=Remedy(without=("--forbid tiling",), note="tiling changes bits"), aim=aim)]


def _fp8(asked: Change) -> list[Change]:
    possible = any(in_fp8(each, asked.forecast.trace) for each in asked.forecast.components.values())
    if "fp8" in asked.aim.allow or not possible:
        return []
    allowed = asked.aim.allow | _ROUNDED
    remedy = Remedy(given=(("--allow", ",".join(sorted(allowed))),), note="rounds weights")
    return [replace(asked, remedy=remedy, aim=replace(asked.aim, allow=allowed))]


def _more_memory(asked: Change, missing: Shortfall) -> Change:
    machine = asked.forecast.machine
    if missing.memory == "VRAM":
        free_gib = _up(machine.gpu.free_bytes + missing.short_bytes)
        remedy = Remedy(given=(("--vram", f"{free_gib:g}GiB"),), note="a card with that much free")
        free_bytes = int(free_gib * GiB)
        gpu = replace(machine.gpu, free_bytes=free_bytes, total_bytes=max(machine.gpu.total_bytes, free_bytes))
        return _on(remedy, replace(machine, gpu=gpu), asked)
    return _more_host(asked, missing)


def _more_host(asked: Change, missing: Shortfall) -> Change:
    machine = asked.forecast.machine
    host, process_bytes = machine.host, PROCESS_BYTES[machine.gpu.device_kind]
    more_bytes = max(missing.short_bytes, GiB)
    if missing.memory == "pinned memory":  # of more memory, a part can be pinned
        more_bytes = more_bytes * host.available_bytes // max(1, host.pinnable_bytes)
    ram_gib = _up(ram_leaving(host.available_bytes + more_bytes, process_bytes))
    host = _typed(host, int(ram_gib * GiB), process_bytes)
    return _on(Remedy(given=(("--ram", f"{ram_gib:g}GiB"),)), replace(machine, host=host), asked)


def _enlarged(change: Change, missing: Shortfall) -> Change:
    """The change together with as much host memory as lacks."""
    more = _more_host(change, missing)
    both = replace(change.remedy, given=(*change.remedy.given, *more.remedy.given))
    return replace(more, remedy=both)


def _typed(host: HostFacts, ram_bytes: int, process_bytes: int) -> HostFacts:
    """The host as it would be with so much memory, of which the same share can be pinned."""
    pinned_share, system_bytes = host.pinnable_bytes / max(1, host.available_bytes), system_bytes_of(ram_bytes)
    available_bytes = ram_bytes - system_bytes - process_bytes
    return replace(
        host,
        available_bytes=available_bytes,
        pinnable_bytes=int(available_bytes * pinned_share),
        system_bytes=system_bytes,
        process_bytes=process_bytes,
    )


def _on(remedy: Remedy, machine: Machine, asked: Change) -> Change:
    return replace(
        asked,
        remedy=remedy,
        case=replace(asked.case, machine=machine),
        forecast=replace(asked.forecast, machine=machine),
    )


def _up(size: int) -> float:
    """GiB, rounded up to a tenth."""
    return math.ceil(size / GiB * 10) / 10
