"""What each block of a denoiser takes on a virtual card with all weights in place: bytes and seconds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from denoisers import GPU, Denoiser
from op_costs import OpCosts
from simulated import counters, now_s
from virtual_cards import VirtualCard


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTimes:
    """One pass. ``blocks`` are in order of use, each with what ran since the block before it; ``stacks`` too.

    Seconds are the device's or the host's, whichever are more; ``compute_s`` and ``host_s`` are each one's whole pass.
    """

    stacks: tuple[tuple[str, int], ...]
    blocks: tuple[tuple[str, float], ...]
    after_s: float
    block_bytes: dict[str, int]
    trunk_bytes: int
    compute_s: float
    host_s: float


Moment = tuple[float, float]


def moment() -> Moment:
    """Where the device's work and the host's stand: seconds busy."""
    counted = counters()
    return counted["compute_busy_s"], now_s() - counted["blocked_s"]


def block_times(denoiser: Denoiser, card: VirtualCard) -> BlockTimes:
    """Runs one pass and looks at both clocks after each block. Moves the denoiser to the device."""
    card.tell_rates()
    ends: list[tuple[str, Moment]] = []
    with OpCosts(card), ExitStack() as hooks:
        denoiser.module.to(GPU)
        given = denoiser.family.inputs()
        for name, block in denoiser.blocks.items():
            hooks.callback(block.register_forward_hook(_noting(name, ends)).remove)
        torch.cuda.synchronize()
        began = moment()
        denoiser.module(**given)
        ended = moment()
    starts = [began, *(each for _, each in ends)]
    order = [name.rpartition(".")[0] for name, _ in ends]
    sizes = {name: sum(each.nbytes for each in block.parameters()) for name, block in denoiser.blocks.items()}
    return BlockTimes(
        stacks=tuple((stack, denoiser.stacks[stack]) for stack in dict.fromkeys(order)),
        blocks=tuple((name, _longer(start, end)) for start, (name, end) in zip(starts, ends, strict=False)),
        after_s=_longer(starts[-1], ended),
        block_bytes=sizes,
        trunk_bytes=denoiser.bytes - sum(sizes.values()),
        compute_s=ended[0] - began[0],
        host_s=ended[1] - began[1],
    )


def _noting(name: str, ends: list[tuple[str, Moment]]) -> Callable[..., None]:
    def note(*_: object) -> None:
        ends.append((name, moment()))

    return note


def _longer(start: Moment, end: Moment) -> float:
    return max(end[0] - start[0], end[1] - start[1])
