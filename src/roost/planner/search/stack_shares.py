"""How residents are shared out between the stacks of one component, by what each stack's copies hold up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence


def residents_that_hide(
    counts: Sequence[int], block_bytes: Sequence[int], compute_s: Mapping[int, float], bytes_per_s: float
) -> tuple[int, ...]:
    """Of each stack, with how many residents its compute hides the copies of its other blocks.

    Empty for a single stack, and where copies hold none of them up. Blocks are counted stack after stack.
    """
    if len(counts) < 2 or not compute_s:
        return ()
    found, first = [], 0
    for count in counts:
        blocks = range(first, first + count)
        copies_s = sum(block_bytes[block] for block in blocks) / bytes_per_s
        computes_s = sum(compute_s.get(block, 0.0) for block in blocks)
        found.append(math.ceil(count * max(0.0, 1 - computes_s / copies_s)) if copies_s else 0)
        first += count
    return tuple(found) if any(found) else ()


def shares_of_stacks(counts: Sequence[int], resident: int, hidden: Sequence[int]) -> Iterator[list[int]]:
    """Ways to share out residents between stacks, where copies hold some up more than others.

    Every stack gets as many as hide its copies, and what is left goes to all; or one that is held up comes first.
    """
    if hidden:
        yield _shared(resident, hidden, counts)
    for stack, wanted in enumerate(hidden):
        if wanted:
            first = [count if index == stack else 0 for index, count in enumerate(counts)]
            yield _shared(resident, first, counts)


def _shared(resident: int, first: Sequence[int], counts: Sequence[int]) -> list[int]:
    """Residents of each stack: up to ``first`` one stack after another, then up to ``counts``."""
    kept = [0] * len(counts)
    for most in (first, counts):
        for stack, count in enumerate(most):
            more = max(0, min(count - kept[stack], resident - sum(kept)))
            kept[stack] += more
    return kept
