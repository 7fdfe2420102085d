"""What a cache over steps may save: the seconds where no call is cut short, and where all are that may be."""

from __future__ import annotations

from dataclasses import replace

from roost.blocks import block_names
from roost.facts.model import Component
from roost.plan.figures import CachedSeconds, Predicted
from roost.planner.cost.costs import less
from roost.planner.cost.estimate import Forecast
from roost.planner.placements import Placement
from roost.planner.rules.names import kind_of
from roost.trace import Trace, UseTrace


def cached_seconds(forecast: Forecast, placements: tuple[Placement, ...], predicted: Predicted) -> CachedSeconds:
    """The first generation with loading, by the mid rates, at both ends of what ``first-block`` may skip."""
    most = replace(forecast, trace=most_skipped(forecast))
    low = most.load_s(placements) + most.timeline(placements).generation_s[0]
    return CachedSeconds(low=min(low, predicted.first_total_s.mid), high=predicted.first_total_s.mid)


def most_skipped(forecast: Forecast) -> Trace:
    """The generation in which each denoiser makes its first step whole, and of every other its first block alone.

    A step makes as many calls as the whole generation makes for each step: with and without the prompt, if so.
    """
    trace = forecast.trace
    denoisers = {name: each for name, each in forecast.components.items() if kind_of(each) == "dit"}
    calls = sum(trace.calls(index) for index, use in enumerate(trace.uses) if use.component in denoisers)
    whole = dict.fromkeys(denoisers, max(1, round(calls / max(1, forecast.steps))))
    uses, sequence = list(trace.uses), list[tuple[int, int]]()
    cut: dict[int, int] = {}
    for index, count in trace.sequence:
        name = trace.uses[index].component
        left = min(count, whole.get(name, count))
        if name in whole:
            whole[name] -= left
        if left:
            sequence.append((index, left))
        if count > left:
            if index not in cut:
                cut[index] = len(uses)
                uses.append(_first_block_alone(trace.uses[index], denoisers[name]))
            sequence.append((cut[index], count - left))
    return replace(trace, uses=tuple(uses), sequence=tuple(sequence))


def _first_block_alone(use: UseTrace, component: Component) -> UseTrace:
    """The call with everything outside all blocks, and of these the first that it calls."""
    names = set(block_names(component.units))
    blocks = [block for block in use.blocks if block.name in names]
    return replace(use, totals=less(use.totals, [each.totals for each in blocks[1:]]), blocks=tuple(blocks[:1]))
