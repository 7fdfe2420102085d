"""Every component's candidates, sized or priced, and which of them count: sure ones or likely ones, tiled or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from roost.blocks import block_names
from roost.facts.rates import RateKey
from roost.plan.schema import Certainty
from roost.planner.buffers import all_buffers
from roost.planner.cost.estimate import Forecast
from roost.planner.cost.fp8_storage import in_fp8
from roost.planner.placements import Lossy, Placement
from roost.planner.rules.case import Case
from roost.planner.search.candidates import Scope, candidate_placements
from roost.planner.search.option import Option
from roost.planner.search.pricing import Pricer
from roost.planner.search.solver import Column, Limits
from roost.planner.search.stack_shares import residents_that_hide
from roost.trace import Trace
from roost.units import GiB

Objective = Literal["seconds", "memory"]
Options = Mapping[str, Sequence[Option]]  # by component, in the plan's order

MORE_BYTES = 2 * GiB
# Into how many parts tiers split what streams; and where a plan costs more than its components do alone.
_SPLITS, _SPLITS_TOGETHER, _LEAF_SPLITS = 16, 4, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What the search minimises, what it may lose for it, and how sure it has to be.

    Seconds, or the peak within ``max_slowdown`` of the fastest. What is neither in ``allow`` nor in ``forbid`` is open:
    tiling and slicing are then taken where nothing else surely fits. ``tiled`` and ``sliced`` are the components to
    tile and to slice, and no other, where the bits are to be those of another plan. A plan that surely fits may take
    ``max_premium`` times the seconds of one that likely does.
    """

    objective: Objective = "seconds"
    max_slowdown: float = 1.2
    allow: frozenset[Lossy] = frozenset()
    forbid: frozenset[Lossy] = frozenset()
    tiled: frozenset[str] | None = None
    sliced: frozenset[str] | None = None
    certainty: Certainty = "sure"
    max_premium: float = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On which terms candidates count: whether what they need must surely be there, and whether VAEs may be tiled."""

    sure: bool
    tiled: bool

    def columns(self, options: Options, pricer: Pricer) -> dict[str, Column]:
        """The candidates on these terms."""
        return {name: Column(map(self._need, self._kept(each)), pricer.separable) for name, each in options.items()}

    def _kept(self, options: Sequence[Option]) -> Sequence[Option]:
        untiled = [each for each in options if not each.placement.tiling]
        return options if self.tiled or not untiled else untiled  # where tiling was typed, nothing is untiled

    def _need(self, option: Option) -> Option:
        if not self.sure or option.sure_bytes == option.own_bytes:
            return option
        # What enters makes room as the simulation lets it, by what is likely: seconds are bounded by it.
        return replace(option, own_bytes=option.sure_bytes)


def limits_of(forecast: Forecast) -> Limits:
    """The machine's budgets, less what the process itself holds."""
    host = forecast.machine.host
    return Limits(
        vram_bytes=forecast.machine.budget_bytes - forecast.context_bytes(),
        host_bytes=host.available_bytes,
        pinned_bytes=min(host.pinnable_bytes, host.available_bytes),
    )


def price_all(case: Case, ruled: Sequence[Placement], pricer: Pricer, aim: Aim) -> Options:
    """Every component's priced candidates, the rule placement among them; variants that can't help are left out."""
    return {each.component.name: _price(case, each, scope_of(each, pricer, aim), pricer) for each in ruled}


def size_all(case: Case, ruled: Sequence[Placement], pricer: Pricer, aim: Aim) -> Options:
    """Every component's candidates with their bytes alone."""
    return {
        each.component.name: [
            pricer.sized(one) for one in candidate_placements(case, each, scope_of(each, pricer, aim))
        ]
        for each in ruled
    }


def tileable(component: str, forecast: Forecast) -> bool:
    """Whether the dry run has seen one of the component's uses tiled."""
    trace = forecast.trace
    return any(use.component == component and trace.variant(index, "tiled") for index, use in enumerate(trace.uses))


def scope_of(ruled: Placement, pricer: Pricer, aim: Aim) -> Scope:
    """What bounds the candidates of one component under this trace and aim."""
    trace, name = pricer.forecast.trace, ruled.component.name
    return Scope(
        passes=pricer.passes(name),
        chunked=_runs_in_rounds(ruled, trace) or bool(ruled.streaming and ruled.streaming.hold),
        tilings=_tilings(name, pricer.forecast, aim),
        in_fp8=in_fp8(ruled.component, trace) if "fp8" in aim.allow else None,
        lingers=pricer.forecast.generations > 1,
        splits=_splits_of(ruled, pricer),
        hidden=residents_that_hide(
            [unit.count for unit in ruled.component.units],
            ruled.block_bytes,
            pricer.least_block_s(name),
            pricer.speeds[RateKey.PINNED_H2D],
        ),
    )


def _splits_of(ruled: Placement, pricer: Pricer) -> int:
    if ruled.component.leaf_level:
        return _LEAF_SPLITS
    return _SPLITS if pricer.separable else _SPLITS_TOGETHER


def _runs_in_rounds(ruled: Placement, trace: Trace) -> bool:
    """Whether most of its blocks' bytes run several times in a call, so that streaming would copy them each time."""
    uses = [use for use in trace.uses if use.component == ruled.component.name]
    again = {block.name for use in uses for block in use.blocks if block.calls > 1}
    sizes = dict(zip(block_names(ruled.component.units), ruled.block_bytes, strict=True))
    return 2 * sum(sizes.get(name, 0) for name in again) > sum(sizes.values())


def _tilings(component: str, forecast: Forecast, aim: Aim) -> tuple[bool, ...]:
    if aim.tiled is not None:
        return (component in aim.tiled,)
    return (False, True) if "tiling" not in aim.forbid and tileable(component, forecast) else (False,)


def host_is_ample(case: Case, forecast: Forecast) -> bool:
    """Whether every weight could have a pinned master."""
    host = forecast.machine.host
    return sum(map(all_buffers, case.components)) <= min(host.available_bytes, host.pinnable_bytes)


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
        sized = pricer.sized(placement)
        if options and _beaten(sized, pricer.bound_s(placement), options):
            continue
        option = pricer.priced(sized)
        options.append(option)
        if plain and option.at_bound:
            reached.add(kind)
    return options


def _beaten(sized: Option, bound_s: float, options: Sequence[Option]) -> bool:
    """Whether another candidate of the same strategy is no worse in anything, however fast this one may be."""
    strategy, lossy, linger = sized.placement.strategy, sized.placement.lossy, sized.placement.linger
    return any(
        each.own_bytes <= sized.own_bytes
        and each.host_bytes <= sized.host_bytes
        and each.pinned_bytes <= sized.pinned_bytes
        and each.acquire_s <= sized.acquire_s
        and each.complexity <= sized.complexity
        and each.evicted_s <= bound_s
        and (each.placement.strategy, each.placement.lossy, each.placement.linger) == (strategy, lossy, linger)
        for each in options
    )
