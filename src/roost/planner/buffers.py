"""What weights take as they lie in units' buffers: aligned, and beside what no file holds, such as rotary tables."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from operator import add

from roost.facts import Component, Inventory, Stack
from roost.trace import Trace, UnfiledBuffers


def block_buffers(component: Component) -> tuple[int, ...]:
    """Bytes of a buffer of each block that streams."""
    sizes = chain.from_iterable(unit.block_bytes for unit in component.units)
    extras = chain.from_iterable(unit.extra_bytes or (0,) * unit.count for unit in component.units)
    return tuple(map(add, sizes, extras))  # the search asks ten thousands of times


def all_buffers(component: Component) -> int:
    """Bytes of the buffers of all its units and its trunk."""
    return component.load_bytes + component.extra_bytes


def with_unfiled(inventory: Inventory, trace: Trace) -> Inventory:
    """The inventory with the buffers that no file holds: a dry run knows of them, and headers don't."""
    by_name = {each.component: each for each in trace.unfiled}
    components = tuple(
        _with(each, by_name[each.name]) if each.name in by_name else each for each in inventory.components
    )
    return replace(inventory, components=components)


def _with(component: Component, unfiled: UnfiledBuffers) -> Component:
    units = tuple(_unit(each, unfiled) for each in component.units)
    more_bytes = unfiled.trunk_bytes + sum(unfiled.block_bytes.values())
    return replace(component, units=units, extra_bytes=component.extra_bytes + more_bytes)


def _unit(unit: Stack, unfiled: UnfiledBuffers) -> Stack:
    more = (unfiled.block_bytes.get(f"{unit.name}.{index}", 0) for index in range(unit.count))
    extra = unit.extra_bytes or (0,) * unit.count
    return replace(unit, extra_bytes=tuple(map(add, extra, more)))
