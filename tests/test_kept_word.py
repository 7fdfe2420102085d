"""Random worlds on the emulated device: what fits never runs out of memory, and what may not loses no denoise."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.errors import OutOfMemory
from roost.residency.run.generate import generate
from roost.residency.run.kept.keeper import generate_keeping
from roost.units import GiB
from short_worlds import STEPS, ShortWorld, short_world

EACH = 20
BATCHES = [pytest.param(first, marks=pytest.mark.slow if first else ()) for first in range(0, 1000, EACH)]


@pytest.mark.parametrize("first", BATCHES)
def test_fitting_plans_keep_their_word_where_activations_are_at_the_interval_s_end(first: int, tmp_path: Path) -> None:
    seen = set()
    for seed in range(first, first + EACH):
        world = short_world(seed)
        if world is None:
            continue
        seen.add(world.plan.certainty)
        if world.plan.certainty == "sure":
            with world.held() as held:
                generate(held, world.request)
                assert held.changes == [], seed
        else:
            _loses_no_denoise(world, tmp_path / str(seed))
    assert seen == {"sure", "likely"}


def _loses_no_denoise(world: ShortWorld, folder: Path) -> None:
    """It ends, tiled at last; or what entered the decode is kept, and gives the bits of a run with room enough."""
    folder.mkdir()
    files = world.files(folder)
    with world.held() as held:
        try:
            generate_keeping(held, world.request, files, resume=True)
            return
        except OutOfMemory:
            made = world.pipeline.steps_made
        assert not world.plan.components["vae"].may_tile or made < STEPS
    assert files.has("decode") == (made == STEPS)
    with world.held(GiB) as held:
        whole = generate(held, world.request).digest
        world.pipeline.steps_made = 0
        again, resumed = generate_keeping(held, world.request, files, resume=True)
    assert again.digest == whole
    assert (resumed is not None and resumed.stage) == ("decode" if made == STEPS else False)
