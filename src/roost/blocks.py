"""Stacks, units and which blocks stay resident, from names and sizes alone: one answer for planner and runtime.

Names are canonical module names (``blocks.17.attn.to_q.weight``), from file headers or from a live module's state.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain

from roost.facts.model import Stack
from roost.facts.resident_policy import ResidentPolicy, blocks_of_stacks

# A block larger than this is split into its own inner stacks: SDXL's largest falls from 2.4 GB to 0.2.
SPLIT_BLOCK_BYTES = 1024**3
# A layer below a block is worth a copy of its own from this part of the block on.
_SMALLEST_LEAVES = 64
# Every tensor starts on such an address in its unit's buffer: kernels round differently on misaligned weights.
ALIGNMENT = 256
# CUDA's caching allocator hands out multiples of this.
ALLOCATION_BYTES = 512
TRUNK = ""  # the trunk's name among units; blocks are named by their module
# Lists of lists are entered this deep; real modules stop at two, names in a hostile file need not.
_MAX_LIST_DEPTH = 8

_Sizes = Mapping[str, int]
_FoundStack = tuple[Stack, list[list[str]]]  # a stack and the tensor names of each of its blocks

_INDEX = re.compile(r"\.(?:0|[1-9]\d{0,8})\.", re.ASCII)


def outermost_stacks(sizes: _Sizes) -> tuple[Stack, ...]:
    """The outermost repeated lists of blocks among tensor ``sizes`` (name -> bytes), sorted by name.

    A list counts when its indices run 0 … n−1 and its members hold submodules; a list of plain layers (a projection
    written as a Sequential) does not, and a list of lists is entered.
    """
    return _by_name(stack for stack, _ in _found_stacks(sizes, sizes, 1))


def streamed_stacks(sizes: _Sizes, limit_bytes: int = SPLIT_BLOCK_BYTES) -> tuple[Stack, ...]:
    """The outermost stacks, with a stack that has a block above ``limit_bytes`` replaced by its inner stacks.

    A block that holds most of its bytes outside inner stacks can't be split and stays whole.
    """
    return stacks_and_units(sizes, limit_bytes)[1]


def stacks_and_units(
    sizes: _Sizes, limit_bytes: int = SPLIT_BLOCK_BYTES
) -> tuple[tuple[Stack, ...], tuple[Stack, ...]]:
    """``outermost_stacks`` and ``streamed_stacks`` of the same sizes, found in one pass over the names."""
    found = _found_stacks(sizes, sizes, 1)
    return _by_name(stack for stack, _ in found), _by_name(_split(sizes, found, limit_bytes))


def _by_name(stacks: Iterable[Stack]) -> tuple[Stack, ...]:
    return tuple(sorted(stacks, key=lambda stack: stack.name))


def _found_stacks(sizes: _Sizes, names: Iterable[str], start: int, depth: int = 0) -> list[_FoundStack]:
    """Stacks among ``names`` by the first index at or after character ``start`` of each."""
    lists: dict[str, dict[int, list[str]]] = {}
    for key, members in _members_by_block(names, start).items():
        prefix, _, index = key[:-1].rpartition(".")
        lists.setdefault(prefix, {})[int(index)] = members
    found: list[_FoundStack] = []
    for prefix, blocks in lists.items():
        if _is_stack(prefix, blocks):
            members_of = [blocks[position] for position in range(len(blocks))]
            found.append((_stack(prefix, sizes, members_of), members_of))
        elif depth < _MAX_LIST_DEPTH:
            for position, members in blocks.items():
                # From the dot after the index, so that a nested list's own index is found next.
                found += _found_stacks(sizes, members, len(f"{prefix}.{position}"), depth + 1)
    return found


def _stack(name: str, sizes: _Sizes, members_of: list[list[str]]) -> Stack:
    sizes_of = [list(map(sizes.__getitem__, members)) for members in members_of]
    return Stack(
        name=name, block_bytes=tuple(map(sum, sizes_of)), extra_bytes=tuple(gap_bytes(each) for each in sizes_of)
    )


def gap_bytes(sizes: Iterable[int]) -> int:
    """What a buffer of tensors of these bytes has between and after them."""
    return sum(-size % ALIGNMENT * count for size, count in Counter(sizes).items())  # few sizes, many tensors


def _members_by_block(names: Iterable[str], start: int) -> dict[str, list[str]]:
    """Names grouped by what precedes and includes their first index: ``blocks.17.``."""
    blocks: dict[str, list[str]] = {}
    key, members = "", []
    for name in names:
        # Neighbours mostly share a block; this test is a tenth of the search's time.
        if key and name.startswith(key):
            members.append(name)
        elif match := _INDEX.search(name, start):
            key = name[: match.end()]
            members = blocks.setdefault(key, [])
            members.append(name)
    return blocks


def _is_stack(prefix: str, blocks: Mapping[int, list[str]]) -> bool:
    if max(blocks) != len(blocks) - 1:
        return False
    rests = {index: len(f"{prefix}.{index}.") for index in blocks}
    has_submodules = any(name.find(".", rests[index]) > 0 for index in blocks for name in blocks[index])
    return has_submodules and not all(
        name[rests[index] :].split(".", 1)[0].isdigit() for index in blocks for name in blocks[index]
    )


def _split(sizes: _Sizes, found: Iterable[_FoundStack], limit_bytes: int) -> list[Stack]:
    result: list[Stack] = []
    for stack, members_of in found:
        inner = _inner_stacks(sizes, stack, members_of) if max(stack.block_bytes) > limit_bytes else []
        if 2 * sum(each.bytes for each, _ in inner) > stack.bytes:
            result += _split(sizes, inner, limit_bytes)
        else:
            result.append(stack)
    return result


def _inner_stacks(sizes: _Sizes, stack: Stack, members_of: list[list[str]]) -> list[_FoundStack]:
    inner: list[_FoundStack] = []
    for index, members in enumerate(members_of):
        # One character beyond the block's name: an inner list needs a name of its own.
        inner += _found_stacks(sizes, members, len(f"{stack.name}.{index}.") + 1)
    return inner


def leaf_stacks(sizes: _Sizes, units: Iterable[Stack]) -> tuple[Stack, ...]:
    """The ``units`` of tensor ``sizes`` with their blocks' layers instead of whole blocks; empty where none can be.

    A layer is a module that holds tensors and no other module. Those that all blocks of a stack have count, and are
    not too small to be worth a copy; what else a block holds goes to the trunk, and must be the lesser part.
    """
    found = tuple(_below(sizes, stack) for stack in units)
    return found if any(stack.leaves for stack in found) else ()


def _below(sizes: _Sizes, stack: Stack) -> Stack:
    blocks = _layers(sizes, stack)
    shared = [name for name in blocks[0] if all(name in block for block in blocks)]
    largest = max(stack.block_bytes)
    leaves = [name for name in shared if max(sum(block[name]) for block in blocks) * _SMALLEST_LEAVES >= largest]
    layers = [block[name] for block in blocks for name in leaves]
    covered = sum(map(sum, layers))
    if len(leaves) < 2 or 2 * covered < stack.bytes:
        return stack
    return Stack(
        name=stack.name,
        block_bytes=tuple(map(sum, layers)),
        leaves=tuple(leaves),
        extra_bytes=tuple(map(gap_bytes, layers)),
    )


def _layers(sizes: _Sizes, stack: Stack) -> list[dict[str, list[int]]]:
    """Of each block the layers below it, by their names within it, with the sizes of their tensors."""
    blocks: list[dict[str, list[int]]] = [{} for _ in stack.block_bytes]
    start, numbers = f"{stack.name}.", {str(number): number for number in range(stack.count)}
    for name, size in sizes.items():
        if name.startswith(start):
            index, _, inner = name[len(start) :].partition(".")
            if index in numbers:  # else it is of the list itself
                blocks[numbers[index]].setdefault(inner.rpartition(".")[0], []).append(size)
    return [_innermost(layers) for layers in blocks]


def _innermost(layers: Mapping[str, list[int]]) -> dict[str, list[int]]:
    outer = {layer[:dot] for layer in layers for dot in range(len(layer)) if layer[dot] == "."}
    return {layer: found for layer, found in layers.items() if layer and layer not in outer}


def block_names(stacks: tuple[Stack, ...]) -> tuple[str, ...]:
    """Every block's module name, stack after stack: the order in which ``resident_blocks`` counts them."""
    return tuple(chain.from_iterable(map(_names, stacks)))


def _names(stack: Stack) -> Iterator[str]:
    if not stack.leaves:
        return (f"{stack.name}.{index}" for index in range(stack.count))
    blocks = range(stack.count // len(stack.leaves))
    return (f"{stack.name}.{index}.{leaf}" for index in blocks for leaf in stack.leaves)


def home_unit(name: str, units: Container[str]) -> str:
    """The block whose module contains ``name`` (a tensor's or module's dotted name), or the trunk."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in units), TRUNK)


def resident_indices(counts: Sequence[int], resident_blocks: int, policy: ResidentPolicy) -> frozenset[int]:
    """Which blocks of stacks of ``counts`` stay, by their place among all of them.

    The first ones, or as evenly spread as they go so that copies never bunch: over all blocks, or over each stack with
    a number of its own. Where fewer stay than such numbers ask for, as many as that of what they choose, evenly.
    """
    if policy == "leading":
        return frozenset(range(min(resident_blocks, sum(counts))))
    if policy == "strided":
        return frozenset(_spread(sum(counts), resident_blocks))
    starts = accumulate(counts, initial=0)
    shares = zip(starts, counts, blocks_of_stacks(policy), strict=False)
    chosen = [start + index for start, count, kept in shares for index in _spread(count, kept)]
    return frozenset(chosen[place] for place in _spread(len(chosen), resident_blocks))


def _spread(count: int, kept: int) -> list[int]:
    """``kept`` of ``count`` places, as evenly as they go."""
    kept = min(kept, count)
    return [place for place in range(count) if (place + 1) * kept // count > place * kept // count]


def streaming_bytes(block_bytes: Sequence[int], resident: Collection[int], slots: int) -> int:
    """Device bytes of the blocks that stay, and of slots that take each of the others."""
    streamed = (size for index, size in enumerate(block_bytes) if index not in resident)
    return sum(block_bytes[index] for index in resident) + slots * max(streamed, default=0)
