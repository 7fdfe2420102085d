"""What the hooks add to a block's forward."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from stacks import BLOCKS, GIB, Stack, held, pass_s, plan_of, warm

from roost.residency.device.emulated import EmulatedDevice
from roost.residency.device.interface import Device

TENSORS, ROUNDS, PASSES = (10, 30, 60), 5, 20


@dataclass(frozen=True)
class Overhead:
    """Seconds that streaming adds to a block's forward: by the hooks alone, and with the device's own calls."""

    tensors: int
    plain_s: float
    hooks_s: float
    streamed_s: float
    resident_s: float


class IdleBlock(torch.nn.Module):
    """Has many small weights, two in a layer as linear layers have, and does nothing: the hooks' time remains."""

    def __init__(self, tensors: int) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(tensors // 2)).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class NoDevice(EmulatedDevice):
    """Copies and orders nothing, so that only the engine's own work is timed."""

    def copy(self, *_: object) -> None: ...
    def record(self, lane: str) -> None: ...
    def wait(self, *_: object) -> None: ...
    def wait_host(self, event: object) -> None: ...
    def synchronize(self) -> None: ...
    def begin_use(self, buffer: torch.Tensor) -> None: ...
    def end_use(self, buffer: torch.Tensor) -> None: ...


def overheads(opened: Callable[[], Device]) -> Iterator[Overhead]:
    """What a block's forward costs the calling thread more than plain eager; the least of several rounds."""
    x = torch.zeros(1)
    for tensors in TENSORS:
        module = Stack([IdleBlock(tensors) for _ in range(BLOCKS)]).eval()

        def plain_block_s(device: Device, module: Stack = module) -> float:
            warm(module, x, device)
            return min(pass_s(module, x, device, PASSES, time.thread_time) for _ in range(ROUNDS)) / BLOCKS

        def block_s(resident_blocks: int | None, device: Device, module: Stack = module) -> float:
            with device, held(module, plan_of(module, resident_blocks), device):
                return plain_block_s(device, module)

        with opened() as device:
            plain_s = plain_block_s(device)
        hooks_s = block_s(0, NoDevice(GIB, poison=False, check=False)) - plain_s
        yield Overhead(tensors, plain_s, hooks_s, block_s(0, opened()) - plain_s, block_s(None, opened()) - plain_s)
