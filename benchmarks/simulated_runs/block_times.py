"""What each block of a denoiser takes on a virtual card with all weights in place: bytes and seconds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from denoisers import GPU, Denoiser
from op_costs import OpCosts
from simulated import counters, now_s
from virtual_cards import VirtualCard

from roost.blocks import block_names
from roost.facts.model import Stack


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTimes:
    """One pass. ``blocks`` are in order of use, each with what ran since the block before it; ``stacks`` too.

    Seconds are the device's or the host's, whichever are more; ``compute_s`` and ``host_s`` are each one's whole pass.
    """

    stacks: tuple[Stack, ...]
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
    called = [name for name, _ in ends]
    sizes = {name: sum(each.nbytes for each in block.parameters()) for name, block in denoiser.blocks.items()}
    return BlockTimes(
        stacks=_in_order(denoiser.stacks, called, sizes),
        blocks=tuple((name, _longer(start, end)) for start, (name, end) in zip(starts, ends, strict=False)),
        after_s=_longer(starts[-1], ended),
        block_bytes=sizes,
        trunk_bytes=denoiser.bytes - sum(sizes[name] for name in {*called}),
        compute_s=ended[0] - began[0],
        host_s=ended[1] - began[1],
    )


def _in_order(stacks: tuple[Stack, ...], called: list[str], sizes: dict[str, int]) -> tuple[Stack, ...]:
    """The stacks and their leaves in order of use; what is never called is the trunk's."""
    found = []
    for stack in stacks:
        place = {name: number % max(1, len(stack.leaves)) for number, name in enumerate(block_names((stack,)))}
        leaves = dict.fromkeys(place[name] for name in called if name in place) if stack.leaves else ()
        kept = stack.of_leaves([stack.leaves[number] for number in leaves]) if stack.leaves else stack
        found.append(replace(kept, block_bytes=tuple(sizes[name] for name in block_names((kept,)))))
    first = {name: number for number, name in reversed([*enumerate(called)])}
    return tuple(sorted(found, key=lambda stack: min(first[name] for name in block_names((stack,)))))


def _noting(name: str, ends: list[tuple[str, Moment]]) -> Callable[..., None]:
    def note(*_: object) -> None:
        ends.append((name, moment()))

    return note


def _longer(start: Moment, end: Moment) -> float:
    return max(end[0] - start[0], end[1] - start[1])
