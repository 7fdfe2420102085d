"""What weights take as they lie in units' buffers: aligned, and beside what no file holds, such as rotary tables."""

from __future__ import annotations

from dataclasses import replace

from roost.facts import Component, Inventory, Stack
from roost.trace import Trace, UnfiledBuffers


def block_buffers(component: Component) -> tuple[int, ...]:
    """Bytes of a buffer of each block that streams."""
    blocks = ((unit.block_bytes, unit.extra_bytes or (0,) * unit.count) for unit in component.units)
    return tuple(size + extra for sizes, extras in blocks for size, extra in zip(sizes, extras, strict=True))


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
    return replace(unit, extra_bytes=tuple(map(int.__add__, extra, more)))
