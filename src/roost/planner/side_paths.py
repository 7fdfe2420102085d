"""What LoRAs that are computed beside layers add to a model's buffers, and to what its calls take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce

from roost.blocks import TRUNK, block_names, gap_bytes, home_unit
from roost.facts.loras import Adapters, SidePath
from roost.facts.model import Component, Inventory, Stack
from roost.trace import OP_CLASSES, ActivationBytes, OpClassTotals, Totals, Trace, UseTrace

# Of a LoRA beside a layer: its two matrices; the scale, and the sum.
_MATMULS, _OTHERS = 2, 2
# What those two read and write of the layer's outputs.
_MOVED = 2 + 3
# Beside the layer's own output, its share before and after the scale.
_ALIVE = 2
# Rows of the layer that has most of them to those of a block's mean one: a stream of pictures has more than one of
# texts, and modulations have one. FLUX's pictures come to 1.8. Prior.
_MOST_ROWS = 2.0
_ELEMENT_BYTES: Mapping[str | None, int] = {"float32": 4, "float64": 8}


def with_buffers(inventory: Inventory, adapters: Iterable[Adapters]) -> Inventory:
    """The inventory with the adapters' weights in the buffers of the blocks that they lie in."""
    by_name = {each.component: each for each in adapters}
    components = (_larger(each, by_name[each.name]) if each.name in by_name else each for each in inventory.components)
    return replace(inventory, components=tuple(components))


def with_work(trace: Trace, components: Iterable[Component], adapters: Iterable[Adapters]) -> Trace:
    """The trace of the same uses with their adapters' work, launches and activations.

    How many rows a layer computes is taken from the FLOPs of its block and the elements of its matrices. Linear weights
    beside which something is computed are not to be stored in 8 bits.
    """
    by_name = {each.component: each for each in adapters}
    if not by_name:
        return trace
    names = {each.name: block_names(each.units) for each in components}
    uses = (_busier(use, by_name.get(use.component), names.get(use.component, ())) for use in trace.uses)
    return replace(
        trace, uses=tuple(uses), linears=tuple(each for each in trace.linears if each.component not in by_name)
    )


def buffer_bytes(paths: Iterable[SidePath]) -> int:
    """What they take in the buffers of the units that they lie in."""
    sizes = [size for each in paths for size in each.tensor_bytes]
    return sum(sizes) + gap_bytes(sizes)


def _larger(component: Component, adapters: Adapters) -> Component:
    more_bytes = sum(buffer_bytes(paths) for paths in _by_unit(adapters.paths, block_names(component.units)).values())
    return replace(
        component,
        units=_larger_units(component.units, adapters),
        leaves=_larger_units(component.leaves, adapters),
        extra_bytes=component.extra_bytes + more_bytes,
        kept_bytes=component.kept_bytes + more_bytes,
    )


def _larger_units(units: tuple[Stack, ...], adapters: Adapters) -> tuple[Stack, ...]:
    more = {unit: buffer_bytes(paths) for unit, paths in _by_unit(adapters.paths, block_names(units)).items()}
    return tuple(each.with_more(more.get(name, 0) for name in block_names((each,))) for each in units)


def _by_unit(paths: Iterable[SidePath], names: tuple[str, ...]) -> dict[str, list[SidePath]]:
    units, found = frozenset(names), dict[str, list[SidePath]]()
    for path in paths:
        found.setdefault(home_unit(path.module, units), []).append(path)
    return found


def _busier(use: UseTrace, adapters: Adapters | None, names: tuple[str, ...]) -> UseTrace:
    if adapters is None:
        return use
    paths, units = _by_unit(adapters.paths, names), frozenset(names)
    matrices = Counter[str]()
    for module, elements in adapters.matrices.items():
        matrices[home_unit(module, units)] += elements
    calls = {each.name: each.calls for each in use.blocks}
    totals = {**{each.name: each.totals for each in use.blocks}, TRUNK: _outside(use)}
    element_bytes = _ELEMENT_BYTES.get(use.compute_dtype, 2)
    added = {
        unit: _Added.to(totals[unit], matrices[unit], paths[unit], calls.get(unit, 1), element_bytes)
        for unit in totals.keys() & paths.keys()
    }
    return replace(
        use,
        totals=reduce(_sum, (each.totals for each in added.values()), use.totals),
        blocks=tuple(
            replace(block, totals=_sum(block.totals, added[block.name].totals)) if block.name in added else block
            for block in use.blocks
        ),
        activation_bytes=_grown(use.activation_bytes, added),
    )


@dataclass(frozen=True, slots=True)
class _Added:
    """What the adapters of one unit add to a use: work of all its calls, and the most bytes of any layer's."""

    totals: Totals
    activation_bytes: int

    @classmethod
    def to(cls, totals: Totals, matrices: int, paths: list[SidePath], calls: int, element_bytes: int) -> _Added:
        flops = totals["matmul"].flops + totals["conv"].flops
        rows = math.ceil(flops / (2 * max(1, matrices)))  # of all calls
        inner = [each.multiply_adds // (each.inputs + each.outputs) for each in paths]  # about its rank
        moved = sum(each.inputs + 2 * rank + each.outputs for each, rank in zip(paths, inner, strict=True))
        matmul = OpClassTotals(
            flops=2 * rows * sum(each.multiply_adds for each in paths),
            bytes=element_bytes * rows * moved + calls * sum(sum(each.tensor_bytes) for each in paths),
            kernels=_MATMULS * calls * len(paths),
        )
        elementwise = OpClassTotals(
            bytes=element_bytes * rows * _MOVED * sum(each.outputs for each in paths),
            kernels=_OTHERS * calls * len(paths),
        )
        most = max(_ALIVE * each.outputs + rank for each, rank in zip(paths, inner, strict=True))
        nothing = OpClassTotals()
        return cls(
            {"matmul": matmul, "attention": nothing, "conv": nothing, "elementwise": elementwise},
            math.ceil(_MOST_ROWS * rows / calls) * most * element_bytes,
        )


def _grown(activations: ActivationBytes, added: Mapping[str, _Added]) -> ActivationBytes:
    """Any block may be the one with the peak; where the trunk's work lies nobody knows."""
    trunk = added[TRUNK].activation_bytes if TRUNK in added else 0
    within = max((each.activation_bytes for unit, each in added.items() if unit != TRUNK), default=0)
    return ActivationBytes(
        before_blocks=activations.before_blocks + trunk if activations.before_blocks else 0,
        in_blocks=activations.in_blocks + within if activations.in_blocks else 0,
        after_blocks=activations.after_blocks + trunk if activations.after_blocks else 0,
    )


def _outside(use: UseTrace) -> Totals:
    """The use's work outside its blocks."""
    return {
        name: OpClassTotals(
            flops=use.totals[name].flops - sum(block.totals[name].flops for block in use.blocks),
            bytes=use.totals[name].bytes - sum(block.totals[name].bytes for block in use.blocks),
            kernels=use.totals[name].kernels - sum(block.totals[name].kernels for block in use.blocks),
        )
        for name in OP_CLASSES
    }


def _sum(one: Totals, other: Totals) -> Totals:
    return {
        name: OpClassTotals(
            flops=one[name].flops + other[name].flops,
            bytes=one[name].bytes + other[name].bytes,
            kernels=one[name].kernels + other[name].kernels,
        )
        for name in OP_CLASSES
    }
