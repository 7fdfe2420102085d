"""Which rows of a tensor each rank has."""

from __future__ import annotations


def rows_of(rank: int, world: int, count: int) -> tuple[int, int]:
    """The first row of ``rank``'s shard and the one after its last, as FSDP splits ``count`` rows over ``world`` ranks.

    Each shard has the same number of rows, rounded up; the last ones have fewer, or none.
    """
    each = -(-count // world)
    return min(rank * each, count), min((rank + 1) * each, count)
