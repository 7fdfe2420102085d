"""Random worlds: more memory, a faster link or a smaller size never make what the search finds worse."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import pytest

from roost.planner.search.columns import Aim
from roost.planner.search.levels import NOISE
from roost.planner.search.search import SearchResult, search
from roost.units import GiB, MiB
from traces import case_of, forecast, rates, trace, use
from worlds import component

TERA = 10**12
WORLDS = 400
BATCHES = [pytest.param(first, marks=pytest.mark.slow if first else ()) for first in range(0, WORLDS, 5)]
LEAST, TAKEN = 1 + 1e-9, NOISE * Aim().max_premium


@dataclass(frozen=True, kw_only=True)
class World:
    """What a seed gives: a pipeline, and what it runs on; ``size`` scales work and activations."""

    seed: int
    size: float = 1.0
    free_gib: float = 0.0
    ram_gib: float = 0.0
    link: float = 0.0

    def found(self) -> SearchResult:
        chance = Random(self.seed)
        names = ("transformer", "text_encoder", "vae")[: chance.randint(2, 3)]
        parts = tuple(
            component(name, chance.randint(1, 12) * GiB, blocks=chance.randint(0, 6), position=position)
            for position, name in enumerate(names)
        )
        uses = [
            use(each, int(self.size * chance.randint(1, 60) * TERA), int(self.size * chance.randint(0, 4096)) * MiB)
            for each in parts
        ]
        order = [chance.randrange(len(uses)) for _ in range(chance.randint(0, 2))]
        calls = [(uses[index], chance.randint(1, 5)) for index in (*range(len(uses)), *order)]
        made = forecast(
            parts,
            trace(*calls),
            rates(link=self.link),
            free_gib=self.free_gib,
            ram_gib=self.ram_gib,
            generations=chance.randint(1, 3),
        )
        return search(*case_of(parts, made), made, Aim())


def worlds(first: int) -> list[World]:
    made = []
    for seed in range(first, first + 5):
        chance = Random(1000 + seed)
        made.append(World(seed=seed, free_gib=chance.randint(3, 40), ram_gib=chance.choice([6, 24, 64]), link=20e9))
    return made


def better(world: World) -> dict[str, World]:
    return {
        "VRAM": replace(world, free_gib=1.3 * world.free_gib),
        "host memory": replace(world, ram_gib=1.7 * world.ram_gib),
        "link": replace(world, link=1.5 * world.link),
        "size": replace(world, size=0.6 * world.size),
    }


@pytest.mark.parametrize("first", BATCHES)
def test_no_better_world_has_a_worse_plan(first: int) -> None:
    fitting = 0
    for world in worlds(first):
        before = world.found()
        if before.chosen is None or before.fastest is None:
            continue
        fitting += 1
        for what, more in better(world).items():
            after = more.found()
            assert after.chosen is not None, (world.seed, what)
            assert after.fastest is not None
            if before.sure == after.sure:
                assert after.fastest.seconds <= LEAST * before.fastest.seconds, (world.seed, what)
            assert after.chosen.seconds <= TAKEN * before.chosen.seconds, (world.seed, what)
    assert fitting > 1
