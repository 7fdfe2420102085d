"""Toy worlds through the engine: every use of every component, on an emulated device or a real one."""

from __future__ import annotations

import random
import threading
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from plans import component_plan
from roost.plan import ComponentPlan
from roost.plan.schema import Masters
from roost.residency.device.cuda import CudaDevice
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.engine.component import HeldComponent
from roost.residency.weights.mapped_masters import Checkpoint, stored_tensors
from roost.residency.weights.staging import Stager
from roost.residency.weights.transfers import Transfers
from toy_worlds import Block, Use, World, block_order

TIMEOUT_S = 60


def play(world: World, device: EmulatedDevice | CudaDevice, unrest: random.Random | None = None) -> torch.Tensor:
    """The world through the engine, in a thread that must be through in time: a deadlock is an error, not a hang.

    ``unrest`` has components come ahead of their time, step down and keep blocks between the uses.
    """
    outcome: list[torch.Tensor | BaseException] = []

    def run() -> None:
        try:
            outcome.append(_play(world, device, unrest))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    assert outcome, f"world {world.seed} is stuck"
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _play(world: World, device: EmulatedDevice | CudaDevice, unrest: random.Random | None) -> torch.Tensor:
    transfers = Transfers(device, pinnable_bytes=2**30)
    transfers.device = Stager(device, world.staging_buffers, buffer_bytes=4096)  # small, so that blocks come in pieces
    pairs = zip(world.modules, world.plans, strict=True)
    with TemporaryDirectory() as folder, closing(transfers):
        held = [
            HeldComponent(f"component{index}", *pair, transfers, _saved(*pair, Path(folder, f"{index}.safetensors")))
            for index, pair in enumerate(pairs)
        ]
        assert not transfers.changes
        return _run(world, device, held, transfers, unrest)


def _saved(module: torch.nn.Module, plan: ComponentPlan, path: Path) -> Checkpoint | None:
    if plan.master is None or not plan.master.mapped:
        return None
    save_file(module.state_dict(), path)
    return Checkpoint(stored_tensors(path))


def _run(
    world: World,
    device: EmulatedDevice | CudaDevice,
    held: list[HeldComponent],
    transfers: Transfers,
    unrest: random.Random | None,
) -> torch.Tensor:
    state = torch.zeros(4, dtype=torch.int64, device=device.device)
    for component in held:
        component.place()
    for use in world.uses:
        for index in use.leaving:
            held[index].release()
        if unrest is not None:
            _disturb(unrest.choice(held), unrest)
        held[use.component].acquire()
        if unrest is not None and unrest.random() < 0.2:
            held[use.component].running.keep(unrest.choice(use.order))
        call(held[use.component], use, state, device)
    for component in held:  # while both lanes still run
        component.restore()
    transfers.close()
    device.synchronize()
    return state.cpu()


def _disturb(component: HeldComponent, chance: random.Random) -> None:
    if chance.random() < 0.5:
        for _ in range(chance.randint(1, 6)):
            component.acquire_ahead()
    elif not component.resident:
        component.step_down()


def streaming(device: EmulatedDevice | CudaDevice) -> tuple[HeldComponent, Use]:
    """A component whose blocks all stream from pinned masters, and a whole pass over them."""
    module = next(module for seed in range(100) for module in World(seed).modules if len(block_order(module)) > 4)
    order = block_order(module)
    plan = component_plan("transformer", module, strategy="layerwise-offload")
    plan = plan.model_copy(update={"master": Masters(pinned=len(order), pageable=0, mapped=0)})
    component = HeldComponent("transformer", module, plan, Transfers(device, pinnable_bytes=2**30))
    return component, Use(0, (), tuple(order), None)


def call(component: HeldComponent, use: Use, state: torch.Tensor, device: EmulatedDevice | CudaDevice) -> None:
    """One use of a component that is on the device."""
    module = component.module
    component.begin("forward")
    _launch(module.trunk, state, device)
    for position, name in enumerate(use.order):
        if position == use.fails_at:
            break
        component.running.enter(name)
        _launch(module.get_submodule(name), state, device)
        # The block before the failure never leaves: an exception goes past its hook.
        if position + 1 != use.fails_at:
            component.running.leave(name)
    component.end(whole=use.fails_at is None)


def _launch(block: torch.nn.Module | torch.Tensor, state: torch.Tensor, device: EmulatedDevice | CudaDevice) -> None:
    assert isinstance(block, Block)
    kernel, weights = block.kernel(state)
    if isinstance(device, EmulatedDevice):
        device.launch(kernel, reads=weights)
    else:
        kernel()
