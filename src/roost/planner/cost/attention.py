"""What attention reaches of a card's attention rate, by the kernel that computes it.

The rate itself (``data_sheet_rates``) is that of FlashAttention-2 with heads 128 wide and no mask. PyTorch takes that
kernel where it can: it knows no masks and no head wider than 256, which the memory-efficient kernel computes then. None
of the shares was measured by this project; the source of each is beside it. Their lower ends are near, as the rate has
an interval of its own: the two together are as far off as the root of both squares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from roost.facts.machine import GpuProfile
from roost.plan.shares import AttentionShares, Level, Share
from roost.planner.cost.data_sheet_rates import is_before, newest_before, overlapped_attention
from roost.planner.cost.rates import Speeds
from roost.trace import AttentionWork

# FlashAttention-2 computes a head as if it had the next of these widths; up to the second they are narrow.
_WIDTHS = (32, 64, 96, 128, 192, 256)
_NARROW = 64
_ALONE = Share(low=1.0, mid=1.0, high=1.0, why="the rate itself")
# Heads 64 wide: about 190 TFLOP/s and 225 at 128 on an A100 (the figures of arXiv 2307.08691), 81.8 and 83.7 on an H20
# (github.com/Dao-AILab/flash-attention/issues/1310), 138 and 143 on an RTX 4090 (the next source). The faster tensor
# cores are, the longer they wait for the softmax, of which narrow heads have more.
_FLASH_NARROW: Mapping[str, Share] = {
    "8.0": Share(low=0.78, mid=0.85, high=1.0, why="heads 64 wide: 0.84 on an A100"),
    "8.6": Share(low=0.9, mid=0.97, high=1.0, why="heads 64 wide: 0.97 on an RTX 4090"),
    "9.0": Share(low=0.82, mid=0.9, high=1.0, why="heads 64 wide: 0.98 on an H20, less with faster tensor cores"),
    "12.0": Share(low=0.9, mid=0.97, high=1.0, why="heads 64 wide: 0.97 on an RTX 4090"),
}
# An RTX 4090 with torch 2.12, 18 heads and 6385 tokens (huggingface.co/Comfy-Org/Ideogram-4/discussions/6): the
# memory-efficient kernel took 1.47 times as long as FlashAttention-2 at a width of 128, 1.15 times at 64. On an A100
# FlashAttention-1, which is as fast as it, has about half of FlashAttention-2's rate (arXiv 2307.08691).
_EFFICIENT: Mapping[str, Share] = {
    "8.0": Share(low=0.5, mid=0.55, high=0.8, why="memory-efficient kernel: about half on an A100"),
    "8.6": Share(low=0.6, mid=0.68, high=0.9, why="memory-efficient kernel: 0.68 on an RTX 4090"),
}
_EFFICIENT_NARROW: Mapping[str, Share] = {
    "8.0": Share(low=0.5, mid=0.55, high=0.85, why="memory-efficient kernel: about half on an A100"),
    "8.6": Share(low=0.74, mid=0.84, high=1.0, why="memory-efficient kernel: 0.84 on an RTX 4090 with heads 64 wide"),
}
# An L20 at widths from 320 to 1024: 54 to 63 of its 119.5 TFLOP/s (github.com/Dao-AILab/flash-attention/issues/1483).
_BEYOND = Share(low=0.45, mid=0.55, high=0.8, why="memory-efficient kernel: half of the peak on an L20")
# cuDNN over FlashAttention-2: 0.82 on an A100, 0.93 on an A10G, 1.00 on an L40S, 0.88 on an RTX PRO 6000
# (github.com/huggingface/transformers/pull/48163), 1.2 on compute capability 8.6 and 8.9
# (github.com/pytorch/pytorch/pull/192799), 1.04 on an RTX PRO 6000 (github.com/sgl-project/sglang/pull/36525).
_CUDNN = Share(low=0.85, mid=1.0, high=1.2, why="cuDNN: 0.82 to 1.2 of FlashAttention-2 but on Hopper")
# Every score in memory: 34.9 ms for FlashAttention-2's 2.63 on that RTX 4090.
_DENSE = Share(low=0.03, mid=0.075, high=0.2, why="dense scores: 0.075 on an RTX 4090")
# 8-bit scores: 2.1 times FlashAttention-2 on an RTX 4090 (arXiv 2410.02367).
_SAGE = Share(low=1.0, mid=1.6, high=2.2, why="8-bit scores: 2.1 on an RTX 4090")
_UNKNOWN = Share(low=0.5, mid=1.0, high=2.0, why="a kernel whose speed was nowhere read")


def attention_shares(profile: GpuProfile | None, backend: str | None = None) -> AttentionShares | None:
    """The shares of a diffusers ``backend`` on the card; None where there is no data sheet or but one kernel for all.

    Before Ampere there is no FlashAttention, and the rate is the memory-efficient kernel's; so there, and on a card of
    AMD, the library's default has the rate itself whatever it is passed.
    """
    if profile is None or profile.compute_capability is None or is_before(profile.compute_capability, "8.0"):
        return None
    capability = profile.compute_capability
    flash = _flash(capability)
    overlapped = _overlapped(profile)
    name = "native" if backend is None else backend.removesuffix("_hub")
    if name == "native":
        return _native(flash, overlapped)
    if name.startswith(("_flash_3", "_flash_varlen_3", "flash_4", "_native_cudnn")):
        return _of_one(flash, overlapped or (_CUDNN if name == "_native_cudnn" else _ALONE))
    if name in ("flash", "flash_varlen", "_native_flash"):
        return replace(flash, masked=flash.plain, masked_narrow=flash.narrow)  # a mask is refused, or cut away
    if name in ("_native_efficient", "xformers"):
        return replace(flash, plain=flash.masked, narrow=flash.masked_narrow)
    return _of_another(name)


def _of_another(name: str) -> AttentionShares:
    one = _DENSE if name == "_native_math" else _SAGE if "sage" in name else _UNKNOWN
    return AttentionShares(plain=one, narrow=one, masked=one, masked_narrow=one, beyond=one)


def _flash(capability: str) -> AttentionShares:
    return AttentionShares(
        plain=_ALONE,
        narrow=newest_before(_FLASH_NARROW, capability),
        masked=newest_before(_EFFICIENT, capability),
        masked_narrow=newest_before(_EFFICIENT_NARROW, capability),
        beyond=_BEYOND,
    )


def _overlapped(profile: GpuProfile) -> Share | None:
    """Kernels that hide their softmax, where the card has the instructions for that: FlashAttention-3's and cuDNN's."""
    share = overlapped_attention(profile)
    if share is None:
        return None
    why = (
        "hides its softmax: FlashAttention-3 and cuDNN reach 126 and 129 for 84 TFLOP/s on an H20, 1.5 to 2 on an H100"
    )
    return Share(low=max(1.0, share / 1.1), mid=share, high=share * 1.2, why=why)


def _native(flash: AttentionShares, overlapped: Share | None) -> AttentionShares:
    """PyTorch's own choice; with a recent cuDNN it takes that on Hopper, also for masks, so the upper ends are its."""
    if overlapped is None:
        return flash
    top = overlapped.high
    return AttentionShares(
        plain=replace(flash.plain, high=top),
        narrow=replace(flash.narrow, high=top),
        masked=replace(flash.masked, high=top),
        masked_narrow=replace(flash.masked_narrow, high=top),
        beyond=flash.beyond,
    )


def _of_one(flash: AttentionShares, share: Share) -> AttentionShares:
    """A kernel at a share of the rate, with a mask or without; narrow heads cost it what they cost flash."""
    narrow = flash.narrow
    found = Share(low=share.low * narrow.low, mid=share.mid * narrow.mid, high=share.high, why=share.why)
    return AttentionShares(plain=share, narrow=found, masked=share, masked_narrow=found, beyond=flash.beyond)


def slowdown(
    works: Iterable[AttentionWork],
    shares: AttentionShares | None,
    speeds: Speeds,
    level: Level,
    *,
    single: bool,
    single_dtypes: frozenset[str],
) -> float:
    """The seconds of a use's attention, over those at the rate of its class; ``single`` says which rate that is."""
    works = tuple(works)
    total, rate = sum(each.flops for each in works), speeds.flop_per_s("attention", single=single)
    if shares is None or not total or rate is None:
        return 1.0
    seconds = 0.0
    for each in works:
        alone = each.dtype in single_dtypes  # one kernel for all
        own = speeds.flop_per_s("attention", single=alone) or rate
        seconds += each.flops / (own * (1.0 if alone else _share(each, shares, level)))
    return seconds * rate / total


def _share(work: AttentionWork, shares: AttentionShares, level: Level) -> float:
    if work.head_width > _WIDTHS[-1]:
        return shares.beyond.at(level)
    padded = next(width for width in _WIDTHS if work.head_width <= width)
    if padded <= _NARROW:
        share = shares.masked_narrow if work.masked else shares.narrow
    else:
        share = shares.masked if work.masked else shares.plain
    return share.at(level) * work.head_width / padded
