"""Random worlds through the engine on a device that computes and copies late: right to the bit, and no byte more."""

import pytest
import torch

from engine_toys import World, batches, play
from roost.residency.emulated import EmulatedDevice

NORMAL, MORE = 320, 3000


def check(seed: int) -> None:
    world = World(seed)
    expected, budget_bytes = world.expected(), world.expected_peak_bytes()
    with EmulatedDevice(budget_bytes, delays=seed, asynchronous_compute=True) as device:
        outcome = play(world, device)
    assert torch.equal(outcome.state, expected), seed
    assert outcome.peak_bytes == budget_bytes, seed
    if world.regular:
        assert outcome.copied_bytes == world.expected_copied_bytes(), seed


@pytest.mark.parametrize("seeds", batches(NORMAL, 20), ids=str)
def test_worlds_are_exact_in_bits_bytes_and_copies(seeds: range) -> None:
    for seed in seeds:
        check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", batches(MORE, 100), ids=str)
def test_more_worlds_are_exact_in_bits_bytes_and_copies(seeds: range) -> None:
    for seed in seeds:
        check(NORMAL + seed)
