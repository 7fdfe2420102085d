"""The first minute on a GPU: what it is, what copies reach, whether every strategy gives the same bits, who waits.

    python benchmarks/gpu/smoke.py -o FILE [--device cuda|emulated] [--only PART …]

Every part's record is written as soon as it is known, so a run that is cut off tells what it had. The pipelines are the
tests' tiny ones; the stack has blocks of FLUX.1-dev's real size. Host waits are those that PyTorch can warn of.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT / "scripts")]

from roost.allocator_settings import allocator_settings  # noqa: E402

os.environ |= allocator_settings(os.environ)  # read once, before CUDA starts

import torch  # noqa: E402 - after the lines above
from diffusers import FluxTransformer2DModel  # noqa: E402

from engine_cases import with_pinned  # noqa: E402
from live_pipelines import STRATEGIES, own_pipeline, request_for  # noqa: E402
from plans import LAYERWISE, plan_for  # noqa: E402
from roost.facts.machine import allocator_limit  # noqa: E402
from roost.facts.rates import RateKey  # noqa: E402
from roost.plan import PlanDocument  # noqa: E402
from roost.residency.device.cuda import CudaDevice  # noqa: E402
from roost.residency.device.emulated import EmulatedDevice  # noqa: E402
from roost.residency.device.interface import Device  # noqa: E402
from roost.residency.hold.attach import hold  # noqa: E402
from roost.residency.rates.transfers import transfer_points  # noqa: E402
from roost.residency.run.generate import generate  # noqa: E402

GIB = 1024**3
FAMILIES = ("flux", "wan2.2", "sdxl")
RATES = (RateKey.PINNED_H2D, RateKey.PINNED_D2H, RateKey.PAGEABLE_H2D, RateKey.PIN)
SHARES = (0, 0.5, "resident")  # of the stack's blocks
PASSES = 4
HEADROOM_BYTES = GIB

Record = dict[str, Any]


def device_of(kind: str, budget_bytes: int) -> Device:
    return CudaDevice(budget_bytes, HEADROOM_BYTES) if kind == "cuda" else EmulatedDevice(budget_bytes)


@contextmanager
def host_waits(kind: str) -> Iterator[list[str]]:
    """What made the host wait for the GPU meanwhile, a message for each time."""
    said: list[str] = []
    if kind != "cuda":
        yield said
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield said
        finally:
            torch.cuda.set_sync_debug_mode("default")
    said += [str(each.message).splitlines()[0] for each in caught if "a synchronizing CUDA" in str(each.message)]


def the_card(kind: str) -> Record:
    """What is here; nothing has run on it yet."""
    found: Record = {"torch": torch.__version__, "python": sys.version.split()[0]}
    if kind == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {"name": card.name, "capability": f"{card.major}.{card.minor}", "total_bytes": card.total_memory}
        found |= {"free_bytes": torch.cuda.mem_get_info(0)[0], "cuda": torch.version.cuda}
        found["allocator"] = {name: os.environ.get(name) for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")}
    return found


def copies(kind: str) -> Record:
    """Bytes per second of copies and of pinning."""
    with device_of(kind, 4 * GIB) as device:
        points = transfer_points(device)
        return {key.value: round(points[key]().value) for key in RATES}


def tiny_pipelines(kind: str) -> Record:
    """Each strategy's digest, seconds, waits of the host and peaks in its second generation, by family."""
    found: Record = {}
    for family in FAMILIES:
        pipeline = own_pipeline(family)
        rows = {name: _generations(pipeline, family, strategy, kind) for name, strategy in STRATEGIES.items()}
        digests = {row["digest"] for row in rows.values()}
        found[family] = {"same_bits": len(digests) == 1, "strategies": rows}
    return found


def _generations(pipeline: Any, family: str, strategy: Any, kind: str) -> Record:
    plan = plan_for(pipeline, strategy)
    with device_of(kind, GIB) as device, hold(pipeline, plan, device) as held:
        first = generate(held, request_for(family))
        with host_waits(kind) as waits:
            began_s = time.perf_counter()
            made = generate(held, request_for(family))
            seconds = time.perf_counter() - began_s
        return {
            "digest": made.digest,
            "same_as_first": made.digest == first.digest,
            "seconds": round(seconds, 4),
            "peak_bytes": made.peak_bytes,
            "host_waits": len(waits),
            "kinds_of_waits": sorted(set(waits)),
        }


def real_stack(kind: str) -> Record:
    """Blocks of FLUX.1-dev's size at 1024 × 1024: a pass with none, half and all of them resident."""
    small = kind != "cuda"
    pipeline = SimpleNamespace()
    pipeline.transformer = _flux_blocks(small)
    pipeline.components = {"transformer": pipeline.transformer}
    inputs = _flux_inputs(pipeline.transformer, tokens=64 if small else 4096)
    rows = {}
    for share in SHARES:
        strategy = share if isinstance(share, str) else {**LAYERWISE, "resident_blocks": share}
        plan = with_pinned(plan_for(pipeline, strategy), 64 * GIB)
        rows[str(share)] = _passes(pipeline, plan, inputs, kind)
    return rows


def _flux_blocks(small: bool) -> torch.nn.Module:
    """Two double and four single blocks, with one value everywhere: only their bytes matter."""
    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "axes_dims_rope": (4, 6, 6)} if small else {}
    with torch.device("meta"):
        made = FluxTransformer2DModel(num_layers=2, num_single_layers=4, guidance_embeds=True, **sizes)
    made = made.to(torch.bfloat16).to_empty(device="cpu").eval().requires_grad_(False)
    for tensor in made.state_dict().values():
        tensor.fill_(0.001)
    return made


def _flux_inputs(module: torch.nn.Module, tokens: int) -> Record:
    config, half = module.config, torch.bfloat16
    return {
        "hidden_states": torch.ones(1, tokens, config.in_channels, dtype=half),
        "encoder_hidden_states": torch.ones(1, tokens // 8, config.joint_attention_dim, dtype=half),
        "pooled_projections": torch.ones(1, config.pooled_projection_dim, dtype=half),
        "timestep": torch.ones(1, dtype=half),
        "guidance": torch.ones(1, dtype=half),
        "img_ids": torch.zeros(tokens, 3),
        "txt_ids": torch.zeros(tokens // 8, 3),
    }


def _passes(pipeline: Any, plan: PlanDocument, inputs: Record, kind: str) -> Record:
    budget_bytes = (16 if kind == "cuda" else 1) * GIB
    with device_of(kind, budget_bytes) as device, hold(pipeline, plan, device), torch.no_grad():
        where = getattr(device, "device", torch.device("cpu"))
        moved = {name: tensor.to(where) for name, tensor in inputs.items()}
        device.watch_stalls()
        first_s = _seconds(pipeline, moved, device, 1)
        device.reset_peak()
        with host_waits(kind) as waits:
            steady_s = _seconds(pipeline, moved, device, PASSES)
        record = {
            "first_s": round(first_s, 4),
            "steady_s": round(steady_s, 4),
            "stall_s": device.stall_s,
            "host_waits": len(waits),
            "allocated_bytes": device.peak_bytes,
            "reserved_bytes": device.reserved_bytes,
            "limit_bytes": allocator_limit(budget_bytes, HEADROOM_BYTES),
        }
        if kind == "cuda":
            record["host_s"] = round(_host_seconds(pipeline, moved, device), 4)
        return record


def _seconds(pipeline: Any, inputs: Record, device: Device, passes: int) -> float:
    device.synchronize()
    began_s = time.perf_counter()
    for _ in range(passes):
        pipeline.transformer(**inputs)
    device.synchronize()
    return (time.perf_counter() - began_s) / passes


def _host_seconds(pipeline: Any, inputs: Record, device: Device) -> float:
    """What the host takes to enqueue a pass: far below the pass, or the GPU waits for it."""
    device.synchronize()
    began_s = time.perf_counter()
    pipeline.transformer(**inputs)
    seconds = time.perf_counter() - began_s
    device.synchronize()
    return seconds


PARTS: dict[str, Callable[[str], Record]] = {
    "card": the_card, "copies": copies, "tiny": tiny_pipelines, "stack": real_stack,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "emulated"), default="cuda")
    parser.add_argument("--only", nargs="+", choices=PARTS)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    record: Record = {"device_kind": options.device, "failed": {}}
    for name in options.only or PARTS:
        began_s = time.perf_counter()
        try:
            record[name] = PARTS[name](options.device)
        except Exception as error:  # the other parts may still tell something
            record["failed"][name] = f"{type(error).__name__}: {error}"[:500]
        record.setdefault("seconds", {})[name] = round(time.perf_counter() - began_s, 1)
        options.output.write_text(json.dumps(record, indent=1) + "\n")
        print(f"{name}: {record['failed'].get(name, 'done')}, {record['seconds'][name]} s", flush=True)
    different = [family for family, each in record.get("tiny", {}).items() if not each["same_bits"]]
    return 1 if record["failed"] or different else 0


if __name__ == "__main__":
    sys.exit(main())
