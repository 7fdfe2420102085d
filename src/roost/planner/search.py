"""The search: the best placements within the budget, what else came close, and what more memory would buy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from roost.planner.candidates import Scope, candidate_placements
from roost.planner.case import Case
from roost.planner.estimate import Forecast
from roost.planner.infeasible import Shortfall, least_vram, shortfall
from roost.planner.placements import Placement
from roost.planner.pricing import Option, Pricer
from roost.planner.solver import NOISE, Combination, Limits, fastest, simplest
from roost.units import GiB

Objective = Literal["seconds", "memory"]
Lossy = Literal["tiling"]

_FRONT_LEVELS = 8
_MORE_BYTES = 2 * GiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What the search minimises: seconds, or the peak within ``max_slowdown`` of the fastest; and what it may lose."""

    objective: Objective = "seconds"
    max_slowdown: float = 1.2
    allow: frozenset[Lossy] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the search found. ``chosen`` is None when nothing fits, and ``shortfall`` then says by how much.

    ``front`` has the plans that no other beats in seconds, VRAM and host memory at once, by falling VRAM;
    ``more_vram_saves_s`` is what 2 GiB more would save.
    """

    chosen: Combination | None
    runner_up: Combination | None
    ruled: Combination
    ruled_fits: bool
    all_resident: Combination | None
    front: tuple[Combination, ...]
    more_vram_saves_s: float | None
    shortfall: Shortfall | None


def search(case: Case, ruled: tuple[Placement, ...], forecast: Forecast, aim: Aim) -> Found:
    """The best combination of placements; the rule plan is always among the candidates."""
    pricer = Pricer(forecast)
    limits = limits_of(forecast)
    options = price_all(case, ruled, pricer, aim)
    rules = _combination(pricer, [column[0] for column in options.values()])
    chosen = _choose(pricer, options, limits, aim)
    more = replace(limits, vram_bytes=limits.vram_bytes + _MORE_BYTES)
    better = fastest(pricer, options, more) if chosen else None
    return Found(
        chosen=chosen,
        runner_up=_runner_up(pricer, options, limits, chosen) if chosen else None,
        ruled=rules,
        ruled_fits=_fits(rules, limits),
        all_resident=_all_resident(pricer, options),
        front=_front(pricer, options, limits, chosen) if chosen else (),
        more_vram_saves_s=max(0.0, chosen.seconds - better.seconds) if chosen and better else None,
        shortfall=None if chosen else shortfall(options, limits),
    )


def limits_of(forecast: Forecast) -> Limits:
    """The machine's budgets, less what the process itself holds."""
    host = forecast.machine.host
    return Limits(
        vram_bytes=forecast.machine.budget_bytes - forecast.context_bytes(),
        host_bytes=host.available_bytes,
        pinned_bytes=min(host.pinnable_bytes, host.available_bytes),
    )


def price_all(case: Case, ruled: tuple[Placement, ...], pricer: Pricer, aim: Aim) -> dict[str, list[Option]]:
    """Every component's priced candidates, the rule placement's first; variants that can't help are left out."""
    most_bytes = pricer.forecast.machine.budget_bytes + _MORE_BYTES
    return {
        each.component.name: _price(case, each, scope_of(case, each, pricer, aim), pricer, most_bytes) for each in ruled
    }


def scope_of(case: Case, ruled: Placement, pricer: Pricer, aim: Aim) -> Scope:
    """What bounds the candidates of one component under this trace and aim."""
    trace, name = pricer.forecast.trace, ruled.component.name
    host, masters_bytes = pricer.forecast.machine.host, sum(each.load_bytes for each in case.components)
    uses = [(index, use) for index, use in enumerate(trace.uses) if use.component == name]
    traced = any(trace.variant(index, "tiled") for index, _ in uses)
    many_rounds = any(block.calls > 1 for _, use in uses for block in use.blocks)
    return Scope(
        passes=pricer.passes(name),
        chunked=many_rounds or bool(ruled.streaming and ruled.streaming.hold),
        tileable=traced and "tiling" in aim.allow,
        host_is_ample=masters_bytes <= min(host.available_bytes, host.pinnable_bytes),
        lingers=pricer.forecast.generations > 1,
    )


def _price(case: Case, ruled: Placement, scope: Scope, pricer: Pricer, most_bytes: int) -> list[Option]:
    options: list[Option] = []
    reached: set[tuple[object, ...]] = set()
    for placement in candidate_placements(case, ruled, scope):
        streaming = placement.streaming
        kind = (placement.tiling, streaming and (streaming.resident_blocks, streaming.pinned, streaming.mapped))
        plain = streaming is None or (streaming.resident_policy == "strided" and streaming.prefetch == 1)
        if options and not plain and kind in reached:
            continue
        # What never fits needs no price, but for the smallest, which says by how much.
        if streaming is not None and streaming.resident_blocks and pricer.own_bytes(placement) > most_bytes:
            continue
        option = pricer.option(placement)
        options.append(option)
        if plain and option.at_bound:
            reached.add(kind)
    return options


def _choose(pricer: Pricer, options: Mapping[str, list[Option]], limits: Limits, aim: Aim) -> Combination | None:
    best = fastest(pricer, options, limits)
    if best is None or aim.objective == "seconds":
        return best and simplest(pricer, options, limits, NOISE * best.seconds)
    allowed_s = aim.max_slowdown * best.seconds
    levels = _levels(options, limits.vram_bytes)
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        found = fastest(pricer, options, replace(limits, vram_bytes=levels[middle]))
        if found is not None and found.seconds <= allowed_s:
            high = middle
        else:
            low = middle + 1
    least = replace(limits, vram_bytes=levels[low])
    quickest = fastest(pricer, options, least) or best
    return simplest(pricer, options, least, min(allowed_s, NOISE * quickest.seconds)) or best


def _levels(options: Mapping[str, list[Option]], vram_bytes: int) -> list[int]:
    """Every VRAM need that some combination has, up to the budget."""
    idle = {0}
    for column in options.values():
        staying = max(each.idle_bytes for each in column)
        idle |= {size + staying for size in idle if size + staying <= vram_bytes}
    own = {each.own_bytes for column in options.values() for each in column}
    return sorted({size + need for size in idle for need in own if size + need <= vram_bytes} | {vram_bytes})


def _runner_up(
    pricer: Pricer, options: Mapping[str, list[Option]], limits: Limits, chosen: Combination
) -> Combination | None:
    """The fastest plan that uses another strategy for at least one component."""
    found: Combination | None = None
    for name, taken in zip(options, chosen.options, strict=True):
        others = [each for each in options[name] if each.placement.strategy != taken.placement.strategy]
        if others:
            below_s = found.seconds if found else math.inf
            found = fastest(pricer, {**options, name: others}, limits, below_s) or found
    return found


def _all_resident(pricer: Pricer, options: Mapping[str, list[Option]]) -> Combination | None:
    columns = [[each for each in column if each.placement.strategy == "resident"] for column in options.values()]
    return _combination(pricer, [column[0] for column in columns]) if all(columns) else None


def _front(
    pricer: Pricer, options: Mapping[str, list[Option]], limits: Limits, chosen: Combination
) -> tuple[Combination, ...]:
    found = [chosen]
    lowest = least_vram(options)[1]
    for step in range(_FRONT_LEVELS):
        vram_bytes = lowest + (limits.vram_bytes - lowest) * step // max(1, _FRONT_LEVELS - 1)
        here = replace(limits, vram_bytes=vram_bytes)
        best = fastest(pricer, options, here)
        plain = best and simplest(pricer, options, here, NOISE * best.seconds)
        found += [plain] if plain else []
    return pareto(found)


def pareto(combinations: Iterable[Combination]) -> tuple[Combination, ...]:
    """The combinations that no other beats in seconds, VRAM and host memory, the most VRAM first."""

    def key(each: Combination) -> tuple[int, float, int]:
        return each.vram_bytes, each.seconds, each.host_bytes

    unique = list({key(each): each for each in combinations}.values())
    front = [
        each
        for each in unique
        if not any(
            other is not each and all(a <= b for a, b in zip(key(other), key(each), strict=True)) for other in unique
        )
    ]
    return tuple(sorted(front, key=lambda each: -each.vram_bytes))


def _combination(pricer: Pricer, options: list[Option]) -> Combination:
    return Combination(options=tuple(options), seconds=pricer.total_s(options))


def _fits(combination: Combination, limits: Limits) -> bool:
    pinned = sum(each.pinned_bytes for each in combination.options)
    return (
        combination.vram_bytes <= limits.vram_bytes
        and combination.host_bytes <= limits.host_bytes
        and pinned <= limits.pinned_bytes
    )
