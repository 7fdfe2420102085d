"""Which cards take which role: the split whose slowest role is as fast as possible.

Cards of one kind are alike, so a split is a count for each role and kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

Rates = Sequence[Sequence[float]]  # role × kind: requests per second of one card; 0 where it can't
Split = tuple[tuple[int, ...], ...]  # role × kind: cards


def pace(split: Split, rates: Rates) -> list[float]:
    """Requests per second of each role, the slowest first."""
    return sorted(sum(n * rate for n, rate in zip(*row, strict=True)) for row in zip(split, rates, strict=True))


def best_split(counts: Sequence[int], rates: Rates) -> Split | None:
    """The split of ``counts`` cards of each kind; None where the roles can't all be taken.

    Each start gives every role but the last one card, and the last the rest. From there cards move between roles, or
    swap theirs, while that makes the slowest role faster, or the next slowest.
    """
    ends = [_climbed(start, rates) for start in _starts(counts, rates)]
    return max(ends, key=lambda each: pace(each, rates), default=None)


def _starts(counts: Sequence[int], rates: Rates) -> Iterator[Split]:
    kinds = range(len(counts))
    for chosen in product(kinds, repeat=len(rates) - 1):
        left = [count - chosen.count(kind) for kind, count in enumerate(counts)]
        helpers = [tuple(int(kind == each) for kind in kinds) for each in chosen]
        split = (*helpers, tuple(left))
        if min(left) >= 0 and pace(split, rates)[0] > 0:
            yield split


def _climbed(split: Split, rates: Rates) -> Split:
    while True:
        better = max(_neighbours(split), key=lambda each: pace(each, rates), default=split)
        if pace(better, rates) <= pace(split, rates):
            return split
        split = better


def _neighbours(split: Split) -> Iterator[Split]:
    """Some cards of one kind in another role, as many as a power of two; or two cards swapped."""
    places = [(role, kind) for role, row in enumerate(split) for kind, count in enumerate(row) if count]
    for role, kind in places:
        for other in range(len(split)):
            count = split[role][kind]
            while other != role and count:
                yield _moved(split, kind, role, other, count)
                count //= 2
    for (role, kind), (other, kind_there) in product(places, repeat=2):
        if role < other and kind != kind_there:
            yield _moved(_moved(split, kind, role, other, 1), kind_there, other, role, 1)


def _moved(split: Split, kind: int, role: int, other: int, count: int) -> Split:
    rows = [list(row) for row in split]
    rows[role][kind] -= count
    rows[other][kind] += count
    return tuple(map(tuple, rows))
