"""Stacks of equal blocks under a plan, hooked as a pipeline's component would be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from roost.plan import ComponentPlan
from roost.plan.schema import Masters, StackRecord
from roost.residency.device.interface import Device
from roost.residency.engine.component import HeldComponent
from roost.residency.engine.runtime import Runtime
from roost.residency.engine.stages import StageRecorder
from roost.residency.hold.hooks import hook_component
from roost.residency.weights.transfers import Transfers

BLOCKS, WARM_PASSES = 20, 2
EMULATED_BLOCK_BYTES = 1024**2
CUDA_WIDTH = 8192  # a bfloat16 weight of 128 MiB
GIB = 1024**3


class Stack(torch.nn.Module):
    """Equal blocks one after another."""

    def __init__(self, blocks: list[torch.nn.Module]) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class TimedBlock(torch.nn.Module):
    """Waits for a fixed time, whatever its weights are; ``computed_s`` counts what it really waited."""

    def __init__(self, compute_s: float) -> None:
        super().__init__()
        weight = torch.zeros(EMULATED_BLOCK_BYTES, dtype=torch.uint8)
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        self.compute_s = compute_s
        self.computed_s = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        began = time.perf_counter()
        time.sleep(self.compute_s)
        self.computed_s += time.perf_counter() - began
        return x


class MatmulBlock(torch.nn.Module):
    """Multiplies by its weight ``repeats`` times."""

    def __init__(self, repeats: int) -> None:
        super().__init__()
        weight = torch.eye(CUDA_WIDTH, dtype=torch.bfloat16)
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        self.repeats = repeats

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.repeats):
            x = x @ self.weight
        return x


def plan_of(module: Stack, resident_blocks: int | None, policy: str = "strided") -> ComponentPlan:
    """Layerwise with two slots, or resident where ``resident_blocks`` is None."""
    count, size = len(module.blocks), sum(each.nbytes for each in module.parameters())
    layerwise: dict[str, Any] = dict.fromkeys(
        ("resident_blocks", "resident_policy", "prefetch", "slots", "hold", "master")
    )
    if resident_blocks is not None:
        layerwise = {
            "resident_blocks": resident_blocks,
            "resident_policy": policy,
            "prefetch": 1,
            "slots": min(2, count - resident_blocks),
            "hold": False,
            "master": Masters(pinned=count, pageable=0, mapped=0),
        }
    return ComponentPlan(
        kind="dit",
        library=None,
        class_name=type(module).__name__,
        variant=None,
        load_dtype=None,
        load_bytes=size,
        trunk_bytes=0,
        stacks=[StackRecord(name="blocks", count=count, bytes=size)],
        strategy="resident" if resident_blocks is None else "layerwise-offload",
        linger=False,
        tiling=False,
        decided_by="default",
        why="a benchmark",
        **layerwise,
    )


@contextmanager
def held(module: Stack, plan: ComponentPlan, device: Device) -> Iterator[Runtime]:
    """The module under its plan, hooked as a pipeline's component would be."""
    transfers = Transfers(device, pinnable_bytes=64 * GIB)
    with ExitStack() as undo:
        undo.callback(transfers.close)
        component = HeldComponent("transformer", module, plan, transfers)
        undo.callback(component.restore)
        component.place()
        recorder = StageRecorder(device, None, {"transformer": "dit"})
        runtime = Runtime({"transformer": component}, {"transformer": plan}, transfers, recorder)
        hook_component(component, runtime, device.device, undo)
        yield runtime


def warm(module: Stack, x: torch.Tensor, device: Device) -> None:
    """Brings the stack into its steady state."""
    pass_s(module, x, device, WARM_PASSES)


def pass_s(
    module: Stack, x: torch.Tensor, device: Device, passes: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of one pass when many follow each other."""
    with torch.no_grad():
        began = clock()
        for _ in range(passes):
            module(x)
        device.synchronize()
    return (clock() - began) / passes
