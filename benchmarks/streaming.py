"""How near streaming comes to its bound, max(compute, copy), and what its hooks cost.

    python benchmarks/streaming.py [--device emulated|cuda] [--passes N] [-o FILE]

Stacks of equal blocks, one bound by copies and one by compute, with 0 to 100 % of their blocks resident. Emulated,
compute is a timed wait and the link a throttled memory copy: that measures the schedule and no hardware. On CUDA
compute is matrix products, repeated until they take the wanted share of a block's measured copy.
"""

from __future__ import annotations

import sys
from pathlib import Path

# This folder's inspect.py would shadow the standard library's inspect module for everything imported below.
sys.path[0] = str(Path(__file__).with_name("streaming_stacks"))

import argparse  # noqa: E402 - after the line above
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from dataclasses import asdict, dataclass  # noqa: E402
from importlib import metadata  # noqa: E402

import torch  # noqa: E402
from overhead import Overhead, overheads  # noqa: E402
from stacks import (  # noqa: E402
    BLOCKS,
    CUDA_WIDTH,
    EMULATED_BLOCK_BYTES,
    GIB,
    MatmulBlock,
    Stack,
    TimedBlock,
    held,
    pass_s,
    plan_of,
    warm,
)

from roost.plan import ComponentPlan  # noqa: E402
from roost.residency.device.cuda import CudaDevice  # noqa: E402
from roost.residency.device.emulated import EmulatedDevice  # noqa: E402
from roost.residency.weights.host_masters import host_memory  # noqa: E402

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
COPY_TO_COMPUTE = {"transfer-bound": 2.0, "compute-bound": 0.5}
EMULATED_LONGER_S = 0.010  # of a block: the longer one of copy and compute
CUDA_TOKENS = 2048


@dataclass(frozen=True)
class Row:
    """One configuration in its steady state. ``ratio`` is wall / max(compute, copy)."""

    stack: str
    resident_blocks: int
    policy: str
    wall_s: float
    compute_s: float
    copy_s: float
    ratio: float


def emulated_rows(passes: int) -> Iterator[Row]:
    """Compute and copy are what the waits really took: on a busy machine every sleep is a little too long."""
    for stack, ratio in COPY_TO_COMPUTE.items():
        block_copy_s = EMULATED_LONGER_S * min(1.0, ratio)
        blocks = [TimedBlock(EMULATED_LONGER_S * min(1.0, 1 / ratio)) for _ in range(BLOCKS)]
        module = Stack(list(blocks))
        for resident_blocks, policy in placements():
            rate = EMULATED_BLOCK_BYTES / block_copy_s
            device = EmulatedDevice(GIB, h2d_bytes_per_s=rate, poison=False, check=False)
            with device, held(module, plan_of(module, resident_blocks, policy), device):
                warm(module, torch.zeros(1), device)
                device.activity.copies.clear()
                for block in blocks:
                    block.computed_s = 0.0
                wall_s = pass_s(module, torch.zeros(1), device, passes)
                compute_s = sum(block.computed_s for block in blocks) / passes
                copy_s = device.activity.copy_s / passes
            yield row_of(stack, (resident_blocks, policy), wall_s, compute_s, copy_s)


def cuda_rows(passes: int) -> Iterator[Row]:
    """Compute is a pass with everything resident, copy the measured copy of a block for each that streams."""
    x = torch.ones(CUDA_TOKENS, CUDA_WIDTH, dtype=torch.bfloat16, device="cuda")
    block_copy_s, matmul_s = cuda_copy_s(), cuda_matmul_s(x)
    for stack, ratio in COPY_TO_COMPUTE.items():
        module = Stack([MatmulBlock(max(1, round(block_copy_s / ratio / matmul_s))) for _ in range(BLOCKS)])
        compute_s = cuda_wall_s(module, plan_of(module, None), x, passes)
        for resident_blocks, policy in placements():
            wall_s = cuda_wall_s(module, plan_of(module, resident_blocks, policy), x, passes)
            copy_s = (BLOCKS - resident_blocks) * block_copy_s
            yield row_of(stack, (resident_blocks, policy), wall_s, compute_s, copy_s)


def placements() -> Iterator[tuple[int, str]]:
    """Every share of resident blocks under both policies, where they differ."""
    for share in SHARES:
        for policy in ("strided", "leading") if 0 < share < 1 else ("strided",):
            yield round(share * BLOCKS), policy


def row_of(stack: str, placement: tuple[int, str], wall_s: float, compute_s: float, copy_s: float) -> Row:
    return Row(stack, *placement, wall_s, compute_s, copy_s, wall_s / max(compute_s, copy_s))


def cuda_wall_s(module: Stack, plan: ComponentPlan, x: torch.Tensor, passes: int) -> float:
    with CudaDevice(torch.cuda.get_device_properties(0).total_memory) as device, held(module, plan, device):
        warm(module, x, device)
        return pass_s(module, x, device, passes)


def cuda_copy_s() -> float:
    """Seconds to copy one block's weight from pinned memory."""
    source = host_memory(2 * CUDA_WIDTH**2)
    with CudaDevice(torch.cuda.get_device_properties(0).total_memory) as device:
        device.register(source)
        target = device.allocate(source.nbytes)
        return _cuda_s(lambda: device.copy(target, source, "compute"))


def cuda_matmul_s(x: torch.Tensor) -> float:
    weight = torch.eye(CUDA_WIDTH, dtype=x.dtype, device=x.device)
    return _cuda_s(lambda: x @ weight)


def _cuda_s(work: Callable[[], object], times: int = 30) -> float:
    for _ in range(5):
        work()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / times


def show(found: list[Row], costs: list[Overhead], device: str) -> None:
    print(f"{device}: steady-state wall / max(compute, copy) of {BLOCKS} equal blocks, two slots")
    for row in found:
        line = f"  {row.stack:15} {row.resident_blocks:3} resident, {row.policy:8}"
        print(f"{line} {1e3 * row.wall_s:8.1f} ms  {row.ratio:5.3f}")
    medians = medians_of(found)
    print("  median: " + ", ".join(f"{policy} {ratio:.3f}" for policy, ratio in medians.items()))
    print("added to a block's forward, microseconds: hooks alone, hooks and device, all resident")
    for cost in costs:
        figures = "  ".join(f"{1e6 * each:6.1f}" for each in (cost.hooks_s, cost.streamed_s, cost.resident_s))
        print(f"  {cost.tensors:3} tensors  {figures}")


def medians_of(found: list[Row]) -> dict[str, float]:
    """The median ratio of each policy."""
    policies = sorted({row.policy for row in found}, reverse=True)
    return {policy: statistics.median(row.ratio for row in found if row.policy == policy) for policy in policies}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("emulated", "cuda"), default="emulated")
    parser.add_argument("--passes", type=int, default=6)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    emulated = options.device == "emulated"
    found = list(emulated_rows(options.passes) if emulated else cuda_rows(options.passes))
    costs = list(overheads(lambda: EmulatedDevice(GIB, poison=False, check=False) if emulated else CudaDevice(GIB)))
    show(found, costs, options.device)
    output = options.output or Path(__file__).parent / "results" / f"streaming-{options.device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "device": options.device,
        "hardware": f"none: {os.cpu_count()} CPUs, timed waits" if emulated else torch.cuda.get_device_name(),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "rows": [asdict(row) for row in found],
        "median_ratio": medians_of(found),
        "overhead_per_block": [asdict(cost) for cost in costs],
    }
    output.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
