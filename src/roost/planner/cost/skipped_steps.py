"""What a cache over steps may save: the seconds where no call is cut short, and where all are that may be."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from roost.blocks import block_names
from roost.facts.model import Component
from roost.facts.step_cache import StepCache
from roost.plan.figures import CachedSeconds, Predicted
from roost.planner.cost.costs import less
from roost.planner.cost.estimate import Forecast
from roost.planner.placements import Placement
from roost.planner.rules.names import kind_of
from roost.trace import OpClassTotals, Trace, UseTrace

# As in diffusers' own settings.
_MAG_KEPT, _MAG_SKIPPED = 0.2, 3  # the share of a call's steps that are whole at first; the most skipped in a row
_TAYLORSEER_KEPT = 3  # steps that are whole at first


def cached_seconds(
    cache: StepCache, forecast: Forecast, placements: tuple[Placement, ...], predicted: Predicted
) -> CachedSeconds:
    """The first generation with loading, by the mid rates, at both ends of what the cache may skip."""
    most = replace(forecast, trace=most_skipped(cache, forecast))
    low = most.load_s(placements) + most.timeline(placements).generation_s[0]
    return CachedSeconds(low=min(low, predicted.first_total_s.mid), high=predicted.first_total_s.mid)


def most_skipped(cache: StepCache, forecast: Forecast) -> Trace:
    """The generation in which each denoiser makes only those steps whole that the cache can't cut short.

    A step makes as many calls as the whole generation makes for each step: with and without the prompt, if so.
    """
    trace = forecast.trace
    denoisers = {name: each for name, each in forecast.components.items() if kind_of(each) == "dit"}
    calls = sum(trace.calls(index) for index, use in enumerate(trace.uses) if use.component in denoisers)
    calls_a_step = max(1, round(calls / max(1, forecast.steps)))
    uses, sequence, cut = list(trace.uses), list[tuple[int, int]](), dict[int, int]()
    made = Counter[str]()
    for index, count in trace.sequence:
        use = trace.uses[index]
        if use.component not in denoisers:
            sequence.append((index, count))
            continue
        for _ in range(count):
            whole = _runs_whole(cache, made[use.component] // calls_a_step, forecast.steps)
            made[use.component] += 1
            if not whole and index not in cut:
                cut[index] = len(uses)
                uses.append(_cut_short(cache, use, denoisers[use.component]))
            _add(sequence, index if whole else cut[index])
    return replace(trace, uses=tuple(uses), sequence=tuple(sequence))


def _add(sequence: list[tuple[int, int]], index: int) -> None:
    if sequence and sequence[-1][0] == index:
        sequence[-1] = index, sequence[-1][1] + 1
    else:
        sequence.append((index, 1))


def _runs_whole(cache: StepCache, step: int, steps: int) -> bool:
    """Whether diffusers computes all of a denoiser's ``step``, however little it changes."""
    if cache.name == "first-block":
        return step == 0
    if cache.name == "mag":
        kept = max(1, int(_MAG_KEPT * steps + 0.5))
        return step < kept or (step - kept) % (_MAG_SKIPPED + 1) == _MAG_SKIPPED
    assert cache.every is not None  # of these there is no threshold
    if cache.name == "pab":
        return step % cache.every == 0
    return step < _TAYLORSEER_KEPT or (step - _TAYLORSEER_KEPT - 1) % cache.every == 0


def _cut_short(cache: StepCache, use: UseTrace, component: Component) -> UseTrace:
    """The call without what the cache skips; of attention, the projections before and after it are not known apart."""
    if cache.skips == "attention":
        skipped = [replace(each, totals={**each.totals, "attention": OpClassTotals()}) for each in use.blocks]
        gone = [less(each.totals, [other.totals]) for each, other in zip(use.blocks, skipped, strict=True)]
        return replace(use, totals=less(use.totals, gone), blocks=tuple(skipped))
    layers_of = {name: max(1, len(unit.leaves)) for unit in component.units for name in block_names((unit,))}
    blocks = [block for block in use.blocks if block.name in layers_of]
    left = layers_of[blocks[0].name] if cache.name == "first-block" and blocks else 0
    return replace(use, totals=less(use.totals, [each.totals for each in blocks[left:]]), blocks=tuple(blocks[:left]))
