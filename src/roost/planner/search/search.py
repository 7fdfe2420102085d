"""The search: the best placements within the budget, what else came close, and what more memory would buy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from roost.planner.buffers import all_buffers
from roost.planner.cost.budget import pool_bytes
from roost.planner.cost.estimate import Forecast
from roost.planner.cost.fp8_storage import in_fp8
from roost.planner.placements import Lossy, Placement
from roost.planner.rules.case import Case
from roost.planner.search.candidates import Scope, candidate_placements
from roost.planner.search.pricing import Option, Pricer
from roost.planner.search.shortfall import Shortfall, least_vram, shared_shortfall, shortfall, split_pool
from roost.planner.search.solver import NOISE, Column, Combination, Limits, fastest, possible, simplest
from roost.units import GiB

Objective = Literal["seconds", "memory"]

_FRONT_LEVELS = 8
MORE_BYTES = 2 * GiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What the search minimises: seconds, or the peak within ``max_slowdown`` of the fastest; and what it may lose."""

    objective: Objective = "seconds"
    max_slowdown: float = 1.2
    allow: frozenset[Lossy] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What the search found. ``chosen`` is None when nothing fits, and ``shortfall`` then says by how much.

    ``front`` has the plans that no other beats in seconds, VRAM and host memory at once, by falling VRAM. ``fastest``
    is the plan of least seconds, however little it gains; ``more_vram`` the same with 2 GiB more, ``more_host`` with
    all the host memory that the weights could use, None where they have it.
    """

    ruled: Combination
    chosen: Combination | None = None
    runner_up: Combination | None = None
    ruled_fits: bool = False
    all_resident: Combination | None = None
    front: tuple[Combination, ...] = ()
    fastest: Combination | None = None
    more_vram: Combination | None = None
    more_host: Combination | None = None
    shortfall: Shortfall | None = None


def search(case: Case, ruled: tuple[Placement, ...], forecast: Forecast, aim: Aim) -> SearchResult:
    """The best combination of placements; the rule plan is always among the candidates."""
    pricer = Pricer(forecast)
    rules = _combination(pricer, [pricer.option(each) for each in ruled])
    sized = size_all(case, ruled, pricer, aim)
    limits = _possible_limits(sized, forecast)
    if isinstance(limits, Shortfall):
        return SearchResult(ruled=rules, shortfall=limits)
    levels = _Levels(pricer, price_all(case, ruled, pricer, aim), limits)
    chosen = _choose(levels, aim)
    assert chosen is not None  # something is possible
    shared = forecast.machine.gpu.unified  # there is no more of the one without less of the other
    return SearchResult(
        chosen=chosen,
        runner_up=_runner_up(levels, chosen),
        ruled=rules,
        ruled_fits=_fits(rules, limits),
        all_resident=_all_resident(pricer, levels.options),
        front=_front(levels, chosen),
        fastest=levels.fastest(limits.vram_bytes),
        more_vram=None if shared else levels.fastest(limits.vram_bytes + MORE_BYTES),
        more_host=None if shared or _host_is_ample(case, forecast) else _with_ample_host(case, ruled, forecast, aim),
    )


def _possible_limits(sized: Mapping[str, Column], forecast: Forecast) -> Limits | Shortfall:
    """Limits within which something is possible; of a shared memory, those that leave the device the most of it."""
    limits, pool = limits_of(forecast), pool_bytes(forecast.machine)
    if pool is None:
        return limits if possible(sized, limits) else shortfall(sized, limits)
    pool = max(0, pool - forecast.context_bytes())
    within = next((each for each in split_pool(limits, pool) if possible(sized, each)), None)
    return within or shared_shortfall(sized, limits, pool)


def limits_of(forecast: Forecast) -> Limits:
    """The machine's budgets, less what the process itself holds."""
    host = forecast.machine.host
    return Limits(
        vram_bytes=forecast.machine.budget_bytes - forecast.context_bytes(),
        host_bytes=host.available_bytes,
        pinned_bytes=min(host.pinnable_bytes, host.available_bytes),
    )


def price_all(case: Case, ruled: tuple[Placement, ...], pricer: Pricer, aim: Aim) -> dict[str, Column]:
    """Every component's priced candidates, the rule placement among them; variants that can't help are left out."""
    columns = {each.component.name: _price(case, each, scope_of(case, each, pricer, aim), pricer) for each in ruled}
    return {name: Column(column, pricer.separable) for name, column in columns.items()}


def size_all(case: Case, ruled: tuple[Placement, ...], pricer: Pricer, aim: Aim) -> dict[str, Column]:
    """Every component's candidates with their bytes alone."""
    return {
        each.component.name: Column(
            map(pricer.sized, candidate_placements(case, each, scope_of(case, each, pricer, aim))), separable=False
        )
        for each in ruled
    }


def scope_of(case: Case, ruled: Placement, pricer: Pricer, aim: Aim) -> Scope:
    """What bounds the candidates of one component under this trace and aim."""
    trace, name = pricer.forecast.trace, ruled.component.name
    uses = [(index, use) for index, use in enumerate(trace.uses) if use.component == name]
    traced = any(trace.variant(index, "tiled") for index, _ in uses)
    many_rounds = any(block.calls > 1 for _, use in uses for block in use.blocks)
    return Scope(
        passes=pricer.passes(name),
        chunked=many_rounds or bool(ruled.streaming and ruled.streaming.hold),
        tileable=traced and "tiling" in aim.allow,
        in_fp8=in_fp8(ruled.component, trace) if "fp8" in aim.allow else None,
        host_is_ample=_host_is_ample(case, pricer.forecast),
        lingers=pricer.forecast.generations > 1,
    )


def _host_is_ample(case: Case, forecast: Forecast) -> bool:
    """Whether every weight could have a pinned master."""
    host = forecast.machine.host
    return sum(map(all_buffers, case.components)) <= min(host.available_bytes, host.pinnable_bytes)


def _with_ample_host(case: Case, ruled: tuple[Placement, ...], forecast: Forecast, aim: Aim) -> Combination | None:
    """The fastest plan if host memory were no limit."""
    enough = sum(map(all_buffers, case.components))
    host = replace(forecast.machine.host, available_bytes=enough, pinnable_bytes=enough)
    larger = replace(forecast, machine=replace(forecast.machine, host=host))
    pricer = Pricer(larger)
    return fastest(pricer, price_all(case, ruled, pricer, aim), limits_of(larger))


def _price(case: Case, ruled: Placement, scope: Scope, pricer: Pricer) -> list[Option]:
    most_bytes = pricer.room_bytes + MORE_BYTES
    options: list[Option] = []
    reached: set[tuple[object, ...]] = set()
    for placement in candidate_placements(case, ruled, scope):
        streaming = placement.streaming
        kind = (placement.lossy, streaming and (streaming.resident_blocks, streaming.pinned, streaming.mapped))
        plain = streaming is None or (streaming.resident_policy == "strided" and streaming.prefetch == 1)
        if options and not plain and kind in reached:
            continue
        if streaming is not None and pricer.own_bytes(placement) > most_bytes:
            continue
        option = pricer.option(placement)
        options.append(option)
        if plain and option.at_bound:
            reached.add(kind)
    return options


class _Levels:
    """The best plans under every VRAM limit; one that fits less than its limit is the best under less too."""

    def __init__(self, pricer: Pricer, options: Mapping[str, Column], limits: Limits) -> None:
        self.pricer, self.options, self.limits = pricer, options, limits
        self._fastest: list[tuple[int, Combination | None]] = []
        self._simplest: list[tuple[int, Combination | None]] = []

    def fastest(self, vram_bytes: int) -> Combination | None:
        """The fastest plan within the limit."""
        known = _known(self._fastest, vram_bytes)
        if known is None:
            known = vram_bytes, fastest(self.pricer, self.options, self.at(vram_bytes))
            self._fastest.append(known)
        return known[1]

    def simplest(self, vram_bytes: int) -> Combination | None:
        """The simplest plan that is as fast as the fastest within the limit, but for noise."""
        best = self.fastest(vram_bytes)
        if best is None:
            return None
        known = _known(self._simplest, vram_bytes)
        if known is None or known[1] is None or known[1].seconds > NOISE * best.seconds:
            known = vram_bytes, simplest(self.pricer, self.options, self.at(vram_bytes), NOISE * best.seconds)
            self._simplest.append(known)
        return known[1]

    def at(self, vram_bytes: int) -> Limits:
        return replace(self.limits, vram_bytes=vram_bytes)


def _known(found: Iterable[tuple[int, Combination | None]], vram_bytes: int) -> tuple[int, Combination | None] | None:
    for entry in found:
        limit_bytes, best = entry
        if limit_bytes == vram_bytes or (limit_bytes > vram_bytes and best and best.vram_bytes <= vram_bytes):
            return entry
    return None


def _choose(levels: _Levels, aim: Aim) -> Combination | None:
    most_bytes = levels.limits.vram_bytes
    best = levels.fastest(most_bytes)
    if best is None or aim.objective == "seconds":
        return levels.simplest(most_bytes)
    allowed_s = aim.max_slowdown * best.seconds
    needs = _needs(levels.options, most_bytes)
    low, high = 0, len(needs) - 1
    while low < high:
        middle = (low + high) // 2
        found = levels.fastest(needs[middle])
        if found is not None and found.seconds <= allowed_s:
            high = middle
        else:
            low = middle + 1
    quickest = levels.fastest(needs[low]) or best
    limit_s = min(allowed_s, NOISE * quickest.seconds)
    return simplest(levels.pricer, levels.options, levels.at(needs[low]), limit_s) or best


def _needs(options: Mapping[str, Column], vram_bytes: int) -> list[int]:
    """Every VRAM need that some combination has, up to the budget."""
    idle = {0}
    for column in options.values():
        idle |= {size + column.idle_bytes for size in idle if size + column.idle_bytes <= vram_bytes}
    own = {each.own_bytes for column in options.values() for each in column.options}
    return sorted({size + need for size in idle for need in own if size + need <= vram_bytes} | {vram_bytes})


def _runner_up(levels: _Levels, chosen: Combination) -> Combination | None:
    """The fastest plan that uses another strategy for at least one component."""
    found: Combination | None = None
    for name, taken in zip(levels.options, chosen.options, strict=True):
        others = [each for each in levels.options[name].options if each.placement.strategy != taken.placement.strategy]
        if others:
            below_s = found.seconds if found else math.inf
            options = {**levels.options, name: Column(others, levels.pricer.separable)}
            found = fastest(levels.pricer, options, levels.limits, below_s) or found
    return found


def _all_resident(pricer: Pricer, options: Mapping[str, Column]) -> Combination | None:
    columns = [
        [each for each in column.options if each.placement.strategy == "resident"] for column in options.values()
    ]
    return _combination(pricer, [column[0] for column in columns]) if all(columns) else None


def _front(levels: _Levels, chosen: Combination) -> tuple[Combination, ...]:
    found = [chosen]
    most_bytes, lowest = levels.limits.vram_bytes, least_vram(levels.options)[1]
    for step in reversed(range(_FRONT_LEVELS)):
        plain = levels.simplest(lowest + (most_bytes - lowest) * step // max(1, _FRONT_LEVELS - 1))
        found += [plain] if plain else []
    return pareto_front(found)


def pareto_front(combinations: Iterable[Combination]) -> tuple[Combination, ...]:
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
