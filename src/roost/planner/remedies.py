"""What would make an infeasible plan fit: single changes, each verified by searching again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from roost.facts import Choices, Machine
from roost.planner.case import Case
from roost.planner.estimate import Forecast
from roost.planner.explicit import dit_layerwise_option, layerwise_option, option_text, resolve
from roost.planner.infeasible import Shortfall
from roost.planner.placements import place
from roost.planner.pricing import Pricer
from roost.planner.rules import apply_rules
from roost.planner.search import Aim, limits_of, size_all
from roost.planner.solver import possible
from roost.units import GiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change, and the question as it then is."""

    text: str
    case: Case
    forecast: Forecast
    aim: Aim

    def fits(self) -> bool:
        """Whether the search then finds a plan."""
        pricer = Pricer(self.forecast)
        ruled = place(self.case, apply_rules(self.case).decisions)
        return possible(size_all(self.case, ruled, pricer, self.aim), limits_of(self.forecast))


def remedies(case: Case, forecast: Forecast, aim: Aim, missing: Shortfall) -> tuple[str, ...]:
    """The single changes that fit, the cheapest first: an option less, then tiling, then memory."""
    changes = [
        *(_with_choices(text, choices, case, forecast, aim) for text, choices in _fewer_options(case.choices)),
        *_tiling(case, forecast, aim),
        _more_memory(case, forecast, aim, missing),
    ]
    return tuple(change.text for change in changes if change.fits())


def _fewer_options(choices: Choices) -> Iterator[tuple[str, Choices]]:
    for index, choice in enumerate(choices.sets):
        yield (
            f"without --set {choice.option.removeprefix('--set ')}",
            replace(choices, sets=choices.sets[:index] + choices.sets[index + 1 :]),
        )
    if selection := layerwise_option(choices):
        yield f"without {selection}", replace(choices, layerwise_components=None)
    if dit := dit_layerwise_option(choices):
        yield f"without {dit}", replace(choices, dit_layerwise_offload=None)
    for group, value in choices.cpu_offload.items():
        others = {name: each for name, each in choices.cpu_offload.items() if name != group}
        yield f"without {option_text(group, value)}", replace(choices, cpu_offload=others)
    if choices.mode in ("speed", "manual"):
        yield "--mode auto", replace(choices, mode="auto")


def _with_choices(text: str, choices: Choices, case: Case, forecast: Forecast, aim: Aim) -> Change:
    changed = replace(case, choices=choices, explicit=resolve(choices, case.components))
    return Change(text=text, case=changed, forecast=forecast, aim=aim)


def _tiling(case: Case, forecast: Forecast, aim: Aim) -> list[Change]:
    if "tiling" in aim.allow or not any(each.setting == "tiled" for each in forecast.trace.variants):
        return []
    allowed = replace(aim, allow=aim.allow | {"tiling"})
    return [Change(text="--allow tiling (changes bits)", case=case, forecast=forecast, aim=allowed)]


def _more_memory(case: Case, forecast: Forecast, aim: Aim, missing: Shortfall) -> Change:
    machine = forecast.machine
    if missing.memory == "VRAM":
        free_gib = _up(machine.gpu.free_bytes + missing.short_bytes)
        text = f"--vram {free_gib:g}GiB (a card with that much free)"
        free_bytes = int(free_gib * GiB)
        gpu = replace(machine.gpu, free_bytes=free_bytes, total_bytes=max(machine.gpu.total_bytes, free_bytes))
        larger = replace(machine, gpu=gpu)
    else:
        ram_gib = _up(machine.host.available_bytes + max(missing.short_bytes, GiB))
        text = f"--ram {ram_gib:g}GiB"
        pinned_share = machine.host.pinnable_bytes / max(1, machine.host.available_bytes)
        ram_bytes = int(ram_gib * GiB)
        host = replace(machine.host, available_bytes=ram_bytes, pinnable_bytes=int(ram_bytes * pinned_share))
        larger = replace(machine, host=host)
    return _on(text, larger, case, forecast, aim)


def _on(text: str, machine: Machine, case: Case, forecast: Forecast, aim: Aim) -> Change:
    return Change(text=text, case=replace(case, machine=machine), forecast=replace(forecast, machine=machine), aim=aim)


def _up(size: int) -> float:
    """GiB, rounded up to a tenth."""
    return math.ceil(size / GiB * 10) / 10
