"""Random worlds through the engine on a device that computes and copies late: right to the bit, and no byte more."""

import random
from typing import Any

import pytest
import torch

from engine_toys import call, play, streaming
from plans import component_plan
from roost.blocks import TRUNK
from roost.plan.revision import revised
from roost.planner.cost.simulator import simulate
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.engine.component import HeldComponent
from roost.residency.weights.host_masters import HostCopy
from roost.residency.weights.rungs import Rungs
from roost.residency.weights.transfers import Transfers
from test_timeline import schedule, use, weights
from toy_worlds import Use, World, batches, block_order

NORMAL, MORE = 240, 3080


def check(seed: int) -> None:
    world = World(seed)
    expected, budget_bytes = world.expected(), world.expected_peak_bytes()
    with EmulatedDevice(budget_bytes, delays=seed, asynchronous_compute=True) as device:
        assert torch.equal(play(world, device), expected), seed
        assert device.used_bytes == device.pinned_bytes == 0, seed
    assert device.peak_bytes == budget_bytes, seed
    if world.regular:
        assert device.activity.copied_bytes("h2d") == world.expected_copied_bytes(), seed


@pytest.mark.dealt(6)
@pytest.mark.parametrize("seeds", batches(NORMAL, 20), ids=str)
def test_worlds_are_exact_in_bits_bytes_and_copies(seeds: range) -> None:
    for seed in seeds:
        check(seed)


@pytest.mark.dealt(2)
@pytest.mark.parametrize("seeds", batches(80, 20), ids=str)
def test_what_comes_early_steps_down_or_stays_changes_no_bit(seeds: range) -> None:
    for seed in seeds:
        world = World(seed)
        with EmulatedDevice(2**30, delays=seed, asynchronous_compute=True) as device:
            assert torch.equal(play(world, device, random.Random(seed)), world.expected()), seed
            assert device.used_bytes == device.pinned_bytes == 0, seed


def test_the_engine_knows_its_size_before_it_is_on_the_device() -> None:
    for seed in range(60):
        world = World(seed)
        for index, (module, plan) in enumerate(zip(world.modules, world.plans, strict=True)):
            blocks = set(world.block_bytes(index))
            expected = world.stage_bytes(index, blocks)
            with EmulatedDevice(2**30) as device:
                component = HeldComponent("component", module, plan, Transfers(device))
                assert component.stage_bytes == expected, seed


@pytest.mark.parametrize("resident", [0, 2, 3, 5])
@pytest.mark.parametrize("prefetch", [1, 2])
@pytest.mark.parametrize("taking_turns", [False, True])
def test_copies_come_in_the_order_that_the_simulation_foresees(
    resident: int, prefetch: int, taking_turns: bool
) -> None:
    """Two passes of a component that streams: what is used first is copied first, whether it stays or not."""
    module = next(each for seed in range(100) for each in World(seed).modules if len(block_order(each)) == 7)
    order = block_order(module)
    plan = component_plan(
        "transformer", module, strategy="layerwise-offload", resident_blocks=resident, prefetch=prefetch
    )
    if taking_turns:
        order = order[4:] + order[3::-1]
        numbers = {name: number for number, name in enumerate(Rungs(plan).names)}
        plan = revised(plan, use_order=[numbers[name] for name in order])
    with EmulatedDevice(2**30) as device:
        transfers = Transfers(device, pinnable_bytes=2**30)
        component = HeldComponent("transformer", module, plan, transfers)
        copied: list[str] = []
        upload = transfers.upload

        def noting(target: torch.Tensor, master: HostCopy) -> Any:
            copied.extend(name for name, unit in component.units.items() if unit.master is master)
            return upload(target, master)

        transfers.upload = noting  # type: ignore[method-assign]
        component.acquire()
        state = torch.zeros(4, dtype=torch.int64)
        for _ in range(2):
            call(component, Use(0, (), tuple(order), None), state, device)
        kept = {order.index(name) for name, kind in component.rungs.kinds().items() if kind == "resident"}
        component.drop()
    assert len(kept) == resident
    moved = weights("transformer", [1] * 7, "layerwise-offload", resident=frozenset(kept), slots=plan.slots)
    timeline = simulate(schedule([moved], [use("transformer", [1.0] * 7)], [(0, 2)]), record=True, exact=True)
    foreseen = [event.block for event in timeline.events if event.lane == "copy"]
    assert copied == [TRUNK if block is None else order[block] for block in foreseen]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", batches(MORE, 100), ids=str)
def test_more_worlds_are_exact_in_bits_bytes_and_copies(seeds: range) -> None:
    for seed in seeds:
        check(NORMAL + seed)


def test_in_steady_state_there_is_no_allocation_host_wait_download_or_unpinned_copy() -> None:
    with EmulatedDevice(2**30, asynchronous_compute=True) as device:
        component, use = streaming(device)
        state = torch.zeros(4, dtype=torch.int64)
        component.acquire()
        call(component, use, state, device)
        activity = device.activity
        before = (activity.allocations, activity.host_waits, activity.copied_bytes("d2h"), activity.unpinned_copies)
        for _ in range(3):
            call(component, use, state, device)
        after = (activity.allocations, activity.host_waits, activity.copied_bytes("d2h"), activity.unpinned_copies)
        assert before == after
        streamed_bytes = sum(component.units[name].bytes for name in use.order)
        assert activity.copied_bytes("h2d") >= 4 * streamed_bytes
        device.synchronize()
        component.restore()
        component._transfers.close()
