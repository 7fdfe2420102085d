"""8-bit storage of a denoiser's linear weights: what it saves, and what casting them back before each use costs."""

from __future__ import annotations

from dataclasses import replace

from roost.blocks import block_names
from roost.facts.model import Component, Stack
from roost.facts.rates import RateKey
from roost.facts.request import Storage
from roost.planner.cost.rates import Speeds
from roost.planner.rules.names import kind_of
from roost.trace import LinearWeights, Trace

FP8: Storage = "float8_e4m3fn"

# Casting reads half of the bytes that it writes, then scales them in place.
_MOVED_SHARE = 0.5 + 1.0 + 2.0
_KERNELS_PER_LINEAR = 2


def in_fp8(component: Component, trace: Trace) -> Component | None:
    """The denoiser's facts with its blocks' linear weights in 8 bits; None where the dry run found none to store so."""
    linears = trace.linears_of(component.name)
    if kind_of(component) != "dit" or component.leaf_level or linears is None or not linears.bytes:
        return None
    units = tuple(_smaller(unit, linears) for unit in component.units)
    saved_bytes = sum(old.bytes - new.bytes for old, new in zip(component.units, units, strict=True))
    return replace(component, units=units, stacks=units, load_bytes=component.load_bytes - saved_bytes, storage=FP8)


def cast_costs(linears: LinearWeights, names: tuple[str, ...], speeds: Speeds) -> tuple[float, ...]:
    """Seconds that each block's casts add to one call of it, in the order of ``names``."""
    by_name = {each.block: each for each in linears.blocks}
    return tuple(
        0.0
        if name not in by_name
        else max(
            by_name[name].bytes * _MOVED_SHARE / speeds[RateKey.MEMORY],
            by_name[name].count * _KERNELS_PER_LINEAR / speeds[RateKey.KERNELS],
        )
        for name in names
    )


def _smaller(unit: Stack, linears: LinearWeights) -> Stack:
    saved = {each.block: each.bytes // 2 for each in linears.blocks}
    names = block_names((unit,))
    sizes = tuple(size - saved.get(name, 0) for name, size in zip(names, unit.block_bytes, strict=True))
    return replace(unit, block_bytes=sizes)
