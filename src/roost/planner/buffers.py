"""What weights take as they lie in units' buffers, and how a component's files differ from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from operator import add

from roost.blocks import block_names
from roost.facts.model import Component, Inventory, Stack
from roost.trace import Trace, UnfiledBuffers, UseTrace


def block_buffers(component: Component) -> tuple[int, ...]:
    """Bytes of a buffer of each block that streams."""
    sizes = chain.from_iterable(unit.block_bytes for unit in component.units)
    extras = chain.from_iterable(unit.extra_bytes or (0,) * unit.count for unit in component.units)
    return tuple(map(add, sizes, extras))  # the search asks ten thousands of times


def block_kept(component: Component) -> tuple[int, ...]:
    """Bytes of each block that are in host memory where its master is mapped."""
    return tuple(chain.from_iterable(unit.kept_bytes or (0,) * unit.count for unit in component.units))


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


def in_order_of_use(inventory: Inventory, trace: Trace) -> Inventory:
    """The inventory with every component's stacks, and blocks, in the order in which its longest use comes to them."""
    components = []
    for each in inventory.components:
        used = [block.name for use in _by_length(trace, each.name) for block in use.blocks]
        ordered = replace(each, units=tuple(_in_order_of_leaves(unit, used) for unit in each.units))
        stack_of = {name: unit.name for unit in ordered.units for name in block_names((unit,))}
        stacks = [stack_of[name] for name in used if name in stack_of]
        components.append(_with_use_order(in_order(ordered, stacks), used))
    return replace(inventory, components=tuple(components))


def in_order(component: Component, stacks: Iterable[str]) -> Component:
    """The component with its stacks in the order of these names; what they leave out comes last."""
    place = {name: position for position, name in enumerate(dict.fromkeys(stacks))}
    return replace(component, units=tuple(sorted(component.units, key=lambda unit: place.get(unit.name, len(place)))))


def _in_order_of_leaves(stack: Stack, used: Iterable[str]) -> Stack:
    """The stack with its leaves in the order in which the blocks come to them; those that alone are never used are the
    trunk's.
    """
    place = {
        name: number % len(stack.leaves) for number, name in enumerate(block_names((stack,)) if stack.leaves else ())
    }
    kept = dict.fromkeys(place[name] for name in used if name in place)
    return stack.of_leaves([stack.leaves[number] for number in kept]) if kept else stack


def _with_use_order(component: Component, used: Iterable[str]) -> Component:
    number = {name: index for index, name in enumerate(block_names(component.units))}
    order = tuple(number[name] for name in dict.fromkeys(used) if name in number)
    return component if order == tuple(sorted(order)) else replace(component, use_order=order)


def _by_length(trace: Trace, component: str) -> list[UseTrace]:
    own = [use for use in trace.uses if use.component == component]
    return sorted(own, key=lambda use: len(use.blocks), reverse=True)


def _with(component: Component, unfiled: UnfiledBuffers) -> Component:
    more = unfiled.block_bytes
    units = tuple(each.with_more(more.get(name, 0) for name in block_names((each,))) for each in component.units)
    more_bytes = unfiled.trunk_bytes + sum(more.values())
    return replace(
        component,
        units=units,
        extra_bytes=component.extra_bytes + more_bytes,
        kept_bytes=component.kept_bytes + more_bytes,
    )


# How a component's files differ from what its modules will have.


_STORED_NAMES = {
    "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip


def cast_bytes(component: Component) -> int:
    """Stored bytes whose dtype isn't the one they load at."""
    if component.load_dtype is None or component.quantization is not None:
        return 0
    if component.storage is not None:
        return component.bytes
    return sum(
        size
        for stored, size in component.bytes_by_dtype.items()
        if _STORED_NAMES.get(stored, component.load_dtype) != component.load_dtype
    )


def waits_in_files(component: Component) -> bool:
    """Whether its module can be loaded with weights that are mapped until its first use; else it is built without."""
    return component.source is None and can_be_mapped(component)


def can_come_late(component: Component) -> bool:
    """Whether its weights can be loaded at its first use, into a module that was built without them."""
    if component.source is not None:
        return component.lora is None
    known = component.tensors is not None and component.quantization is None and bool(component.files)
    if not known or component.lora is not None:
        return False
    # Rounding to 8 bits takes weights as they load: those that are cast first are all in memory for a moment.
    return component.storage is None or not cast_bytes(replace(component, storage=None))


def can_be_mapped(component: Component) -> bool:
    """Whether the bytes of its files can serve as masters.

    Of a model's own files these are safetensors that load as they are stored, by any name; of a given one, what its
    header says, unless that is the lesser part.
    """
    if component.source is not None:
        return component.lora != "fused" and 2 * component.kept_bytes <= all_buffers(component)
    plain = component.tensors is not None and component.quantization is None and component.storage is None
    grows = component.load_bytes > component.bytes  # some modules load as float32 whatever is asked
    return plain and component.lora != "fused" and bool(component.files) and not grows and not cast_bytes(component)
