"""How much of its data sheet a card reaches in eager PyTorch: one prior for each mechanism.

None was measured by this project. They were chosen on timings that others published, and checked on others that were
held out: ``benchmarks/published.yaml`` has both, ``benchmarks/published.py`` compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from roost.facts.machine import GpuProfile
from roost.facts.rates import HALF, SINGLE, RateKey

Entry = TypeVar("Entry")

# Dense matrix products that nothing else holds back.
_MATMUL_SHARE = 0.92
# Under load a card's clock falls until its power suffices. A lower clock needs less voltage too, so that the work falls
# less than the power does.
_POWER_EXPONENT = 0.75
# cuDNN picks by heuristics, and turns channels around before and after.
_CONV_OF_MATMUL = 0.60
# float32 convolutions run as TF32, half as fast; where there is none, on the vector units, as all other float32 work.
_TF32_CONV_OF_MATMUL = 0.25
_VECTOR_SHARES: Mapping[str, float] = {"matmul": 0.80, "attention": 0.40, "conv": 0.70}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Architecture:
    """``flop_per_joule`` of tensor cores before power holds them back, and what attention reaches of their peak.

    Where power is the limit, attention reaches ``attention_of_matmul``: its softmax keeps the tensor cores waiting.
    ``softmax_flop_per_s`` is its rate if only the softmax took time, where that doesn't hide at all.
    ``overlapped_share`` is of kernels written for the card, which hide it.
    """

    flop_per_joule: float
    attention_share: float
    attention_of_matmul: float = 0.92
    softmax_flop_per_s: float | None = None
    overlapped_share: float | None = None


# By compute capability. PyTorch's attention is FlashAttention-2 from Ampere on; before, a slower kernel. On Hopper it
# lacks the instructions that reach the tensor cores' peak, and waits for its softmax. FlashAttention-3 and cuDNN do
# neither: 126 and 129 of 148 TFLOP/s on an H20 (github.com/Dao-AILab/flash-attention/issues/1310).
_ARCHITECTURES: Mapping[str, _Architecture] = {
    "7.0": _Architecture(flop_per_joule=0.33e12, attention_share=0.40, attention_of_matmul=0.5),
    "7.5": _Architecture(flop_per_joule=0.17e12, attention_share=0.40, attention_of_matmul=0.5),
    "8.0": _Architecture(flop_per_joule=0.49e12, attention_share=0.62),
    "8.6": _Architecture(flop_per_joule=0.43e12, attention_share=0.80),
    "8.9": _Architecture(flop_per_joule=0.60e12, attention_share=0.88),
    "9.0": _Architecture(flop_per_joule=0.78e12, attention_share=0.62, softmax_flop_per_s=8e14, overlapped_share=0.86),
    "10.0": _Architecture(flop_per_joule=1.3e12, attention_share=0.35, overlapped_share=0.6),
    "12.0": _Architecture(flop_per_joule=0.65e12, attention_share=0.80),
}
_AMD = _Architecture(flop_per_joule=0.64e12, attention_share=0.35)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """FLOP per second of one class of operations, and what it is of the data sheet."""

    flop_per_s: float
    why: str


def reached(profile: GpuProfile) -> dict[RateKey, Reached]:
    """What eager PyTorch reaches on the card in half precision and in float32.

    Empty where the data sheet has no tensor rate.
    """
    number = profile.bf16_flop_per_s or profile.fp16_flop_per_s
    if number is None:
        return {}
    peak, architecture = number.value, _architecture(profile)
    clock = _clock(peak * _MATMUL_SHARE, profile, architecture)
    matmul = peak * _MATMUL_SHARE * clock
    limit = f" at its {profile.power_w.value:.0f} W" if profile.power_w and clock < 1 else ""
    half = {"matmul": matmul, "attention": _attention(peak, matmul, architecture), "conv": matmul * _CONV_OF_MATMUL}
    found = {HALF[name]: Reached(flop_per_s=value, why=_share(value, peak) + limit) for name, value in half.items()}
    vector = profile.fp32_flop_per_s.value if profile.fp32_flop_per_s else peak / 4
    for name, share in _VECTOR_SHARES.items():
        found[SINGLE[name]] = Reached(flop_per_s=vector * share, why=f"{_share(vector * share, vector)} in float32")
    if profile.bf16_flop_per_s:  # TF32 came with bfloat16
        tf32 = matmul * _TF32_CONV_OF_MATMUL
        found[RateKey.SINGLE_CONV] = Reached(flop_per_s=tf32, why=f"{_share(tf32, peak / 2)} in TF32")
    return found


def _share(flop_per_s: float, peak: float) -> str:
    return f"{flop_per_s / peak:.0%} of {peak / 1e12:.3g} TFLOP/s"


def _architecture(profile: GpuProfile) -> _Architecture:
    """The card's own, or the newest one before it."""
    if profile.compute_capability is None:
        return _AMD
    return newest_before(_ARCHITECTURES, profile.compute_capability)


def newest_before(table: Mapping[str, Entry], capability: str) -> Entry:
    """The entry of a compute capability: its own, the newest one before it, or the oldest."""
    older = [name for name in table if _version(name) <= _version(capability)]
    return table[max(older, key=_version, default=min(table, key=_version))]


def is_before(capability: str, other: str) -> bool:
    """Whether the first compute capability is the older one."""
    return _version(capability) < _version(other)


def _version(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))


def _clock(flop_per_s: float, profile: GpuProfile, architecture: _Architecture) -> float:
    """The share of the clock that the card's power allows at this rate."""
    if profile.power_w is None:
        return 1.0
    power_share = profile.power_w.value * architecture.flop_per_joule / flop_per_s
    return min(1.0, float(power_share**_POWER_EXPONENT))


def overlapped_attention(profile: GpuProfile) -> float | None:
    """What kernels that hide their softmax reach, times the attention rate; None where the card knows none."""
    found, number = reached(profile), profile.bf16_flop_per_s or profile.fp16_flop_per_s
    architecture = _architecture(profile)
    if not found or number is None or architecture.overlapped_share is None:
        return None
    matmul = found[RateKey.MATMUL].flop_per_s * architecture.attention_of_matmul
    return min(number.value * architecture.overlapped_share, matmul) / found[RateKey.ATTENTION].flop_per_s


def _attention(peak: float, matmul: float, architecture: _Architecture) -> float:
    products = min(peak * architecture.attention_share, matmul * architecture.attention_of_matmul)
    softmax = architecture.softmax_flop_per_s
    return products if softmax is None else 1 / (1 / products + 1 / softmax)
