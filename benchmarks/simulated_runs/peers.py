"""How others run a denoiser that is larger than the card: each takes it on the host and returns what to call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from denoisers import GPU, Denoiser

Call = Callable[..., Any]
MB = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way to run a denoiser. ``tool`` is what must be there for it."""

    name: str
    tool: str
    enter: Callable[[Denoiser], Call]


def peers() -> Iterator[Peer]:
    """Every peer with every setting that is raced."""
    yield Peer(name="all resident", tool="torch", enter=resident)
    yield Peer(name="accelerate model offload", tool="accelerate", enter=model_offload)
    yield Peer(name="accelerate sequential offload", tool="accelerate", enter=sequential_offload)
    for level, flag in product(("block_level", "leaf_level"), ("", "record_stream", "low_cpu_mem")):
        name = f"diffusers group offload {level} stream {flag}".strip()
        yield Peer(name=name, tool="diffusers", enter=group_offload(level, flag))
    for share in (0, 25, 50, 75):
        yield Peer(name=f"SGLang layerwise {share} % strided", tool="sglang", enter=sglang(share, "strided"))
    yield Peer(name="mmgp budget 2000 MB", tool="mmgp", enter=mmgp(2_000))


def resident(denoiser: Denoiser) -> Call:
    return denoiser.module.to(GPU)


def model_offload(denoiser: Denoiser) -> Call:
    """Within one stage: moved in as a whole at its first call, and there for all others."""
    from accelerate import cpu_offload_with_hook

    return cpu_offload_with_hook(denoiser.module, torch.device(GPU))[0]


def sequential_offload(denoiser: Denoiser) -> Call:
    from accelerate import cpu_offload

    return cpu_offload(denoiser.module, torch.device(GPU), offload_buffers=bool(denoiser.module._parameters))


def group_offload(level: str, flag: str) -> Callable[[Denoiser], Call]:
    def enter(denoiser: Denoiser) -> Call:
        from diffusers.hooks import apply_group_offloading

        apply_group_offloading(
            denoiser.module,
            onload_device=torch.device(GPU),
            offload_device=torch.device("cpu"),
            offload_type=level,
            num_blocks_per_group=1 if level == "block_level" else None,
            non_blocking=True,
            use_stream=True,
            record_stream=flag == "record_stream",
            low_cpu_mem_usage=flag == "low_cpu_mem",
        )
        return denoiser.module

    return enter


def sglang(share: int, policy: str) -> Callable[[Denoiser], Call]:
    def enter(denoiser: Denoiser) -> Call:
        from sglang_layerwise import managed

        return managed(denoiser, share, policy)

    return enter


def mmgp(budget_mb: int) -> Callable[[Denoiser], Call]:
    """``budget_mb`` is what the model may take of the card; as its documentation says, it takes about twice that."""

    def enter(denoiser: Denoiser) -> Call:
        from mmgp import offload

        offload.all(
            {"transformer": denoiser.module},
            pinnedMemory=True,
            quantizeTransformer=False,
            budgets={"transformer": budget_mb},
            asyncTransfers=True,
            verboseLevel=0,
            perc_reserved_mem_max=0.99,
        )
        return denoiser.module

    return enter
