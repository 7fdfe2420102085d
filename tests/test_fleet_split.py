"""Cards are split over roles as well as trying every split finds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product

import pytest

from roost.planner.fleet.split import best_split, pace


def every_split(counts: list[int], roles: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    ways = [[each for each in product(range(n + 1), repeat=roles) if sum(each) == n] for n in counts]
    for chosen in product(*ways):
        yield tuple(zip(*chosen, strict=True))


@pytest.mark.parametrize("seed", range(60))
def test_no_other_split_has_a_quicker_slowest_role(seed: int) -> None:
    chance = random.Random(seed)
    kinds, roles = chance.randint(1, 3), chance.randint(2, 3)
    counts = [chance.randint(1, 4) for _ in range(kinds)]
    rates = [[chance.choice((0, 1, 1, 1)) * chance.uniform(0.1, 30) for _ in range(kinds)] for _ in range(roles)]
    best = max((pace(each, rates) for each in every_split(counts, roles)), key=lambda each: each[0])
    found = best_split(counts, rates)
    assert (pace(found, rates)[0] if found else 0.0) == pytest.approx(best[0])
    if found:
        assert [sum(row[kind] for row in found) for kind in range(kinds)] == counts


def test_the_weak_card_encodes_where_one_has_to() -> None:
    assert best_split([1, 1], [[10.0, 3.0], [1.0, 0.2]]) == ((0, 1), (1, 0))


def test_a_large_fleet_has_no_more_helpers_than_it_needs() -> None:
    (encoders,), (decoders,), (denoisers,) = best_split([1000], [[30.0], [20.0], [1.0]]) or ((0,), (0,), (0,))
    assert (encoders + decoders + denoisers, denoisers) == (1000, 922)


def test_what_no_card_can_do_has_no_split() -> None:
    assert best_split([2, 1], [[1.0, 1.0], [0.0, 0.0]]) is None
