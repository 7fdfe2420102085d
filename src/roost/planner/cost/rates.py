"""How fast a card computes and its host link copies: every rate with its source and how far off it may be.

What large kernels reach of a data sheet are priors (``throughput``). They were not measured by this project; a measured
rate replaces each, and narrows its interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from roost.facts.machine import GpuFacts, GpuProfile
from roost.plan.figures import Level, Rate
from roost.plan.measurements import MeasuredRate
from roost.planner.cost.throughput import reached
from roost.trace import OpClass

Precision = Literal["half", "fp8", "single"]

SINGLE_DTYPES = frozenset({"float32", "float64"})
LEVELS: tuple[Level, ...] = ("slow", "mid", "fast")
# Bytes per second and lane after line coding (8b/10b, 128b/130b, FLIT). Source: PCI-SIG base specifications.
_PCIE_LANE_BYTES_PER_S = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
# Headers of 256-byte packets, flow control and the driver leave about this share. Prior.
_PCIE_SHARE = 0.80
# How far off each class of operation may be from its prior in ``throughput``. Attention has several kernels.
_SPREADS: Mapping[OpClass, float] = {"matmul": 1.2, "attention": 1.3, "conv": 1.6}
_MEMORY_SHARE, _MEMORY_SPREAD = 0.90, 1.2
# Large operations of one shape were timed; a model has others.
_SHAPES_SPREAD = 1.1
# Before any run of a model, its rate may be this far from the timed one; on an emulated device, which no data sheet
# describes, from the guess. Priors.
_TIMED_REACH, _EMULATED_REACH = 1.5, 100.0
# How much of the way past what was believed one, two or more runs go, by factors.
_TRUST = (0.0, 0.5, 1.0)
_UNKNOWN_SPREAD = 4.0
_GUESS_FLOP_PER_S = 2e13


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What the cost model divides by. Bytes and FLOP per second; ``kernels_per_s`` is what the host can launch."""

    matmul_flop_per_s: Rate
    attention_flop_per_s: Rate
    conv_flop_per_s: Rate
    single_matmul_flop_per_s: Rate
    single_attention_flop_per_s: Rate
    single_conv_flop_per_s: Rate
    memory_bytes_per_s: Rate
    kernels_per_s: Rate
    pinned_h2d_bytes_per_s: Rate
    pinned_d2h_bytes_per_s: Rate
    pageable_h2d_bytes_per_s: Rate
    pageable_d2h_bytes_per_s: Rate
    disk_bytes_per_s: Rate
    pin_bytes_per_s: Rate
    cast_bytes_per_s: Rate

    def at(self, level: Level) -> Speeds:
        """Plain figures at one end of every interval."""
        return Speeds(values={each.name: getattr(self, each.name).at(level) for each in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """All rates as plain figures, by their names in ``Rates``."""

    values: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    def flop_per_s(self, op_class: OpClass, *, single: bool) -> float | None:
        """The rate of one class of operations; None for those that only move memory."""
        if op_class == "elementwise":
            return None
        return self.values[f"{'single_' if single else ''}{op_class}_flop_per_s"]


def single_dtypes_of(profile: GpuProfile | None) -> frozenset[str]:
    """The dtypes that run at the ``single`` rates: float32, and bfloat16 on a card whose tensor cores lack it."""
    return SINGLE_DTYPES if profile is None or profile.bf16_flop_per_s else SINGLE_DTYPES | {"bfloat16"}


def rates_of(
    gpu: GpuFacts,
    profile: GpuProfile | None,
    timed: Mapping[str, MeasuredRate] | None = None,
    fitted: Mapping[str, MeasuredRate] | None = None,
) -> Rates:
    """The card's rates: its data sheet's or a wide guess, replaced by timed ones, moved by those fitted to runs.

    Both are by their field names; unknown names are left out, since they may be from a newer version's store.
    """
    memory = profile.memory_bytes_per_s.value if profile else 4e11
    rates = Rates(
        **_flop_rates(profile),
        memory_bytes_per_s=Rate(
            value=memory * _MEMORY_SHARE,
            spread=_MEMORY_SPREAD if profile else _UNKNOWN_SPREAD,
            source="spec",
            why=f"{_MEMORY_SHARE:.0%} of {memory / 1e9:.0f} GB/s",
        ),
        kernels_per_s=_prior(1 / 7e-6, 1.6, "7 µs a bare launch; eager model code takes five a kernel"),
        disk_bytes_per_s=_prior(2e9, 2.5, "an NVMe disk read through the page cache"),
        pin_bytes_per_s=_prior(4e9, 2.0, "faulting in and registering host pages"),
        cast_bytes_per_s=_prior(3e9, 2.0, "casting on the host"),
        **_link_rates(gpu, profile),
    )
    names = {each.name for each in fields(Rates)}
    rates = replace(rates, **{name: _timed(name, each) for name, each in (timed or {}).items() if name in names})
    reach = _EMULATED_REACH if gpu.device_kind == "emulated" else 1.0
    moved = {
        name: believed(each, getattr(rates, name), reach) for name, each in (fitted or {}).items() if name in names
    }
    return replace(rates, **moved)


def _flop_rates(profile: GpuProfile | None) -> dict[str, Rate]:
    found = reached(profile) if profile else {}
    rates = {}
    for name, spread in _SPREADS.items():
        guesses = {name: _GUESS_FLOP_PER_S, f"single_{name}": _GUESS_FLOP_PER_S / 8}
        for kind, guess in guesses.items():
            rates[f"{kind}_flop_per_s"] = Rate(
                value=found[kind].flop_per_s if found else guess,
                spread=spread * (1.0 if kind == name else 1.3) if found else _UNKNOWN_SPREAD,
                source="spec",
                why=found[kind].why if found else "no data sheet for this card",
            )
    return rates


def _prior(value: float, spread: float, why: str) -> Rate:
    return Rate(value=value, spread=spread, source="spec", why=f"prior: {why}")


def _link_rates(gpu: GpuFacts, profile: GpuProfile | None) -> dict[str, Rate]:
    """Host to device and back, by the tier of the host copy. What NVML reports of the slot beats the data sheet."""
    generation = gpu.pcie_generation or (
        int(profile.pcie_generation.value) if profile and profile.pcie_generation else 0
    )
    lanes = gpu.pcie_width or (int(profile.pcie_lanes.value) if profile and profile.pcie_lanes else 0)
    known = generation in _PCIE_LANE_BYTES_PER_S and lanes > 0
    link = _PCIE_LANE_BYTES_PER_S[generation] * lanes if known else _PCIE_LANE_BYTES_PER_S[4] * 16
    spread = 1.2 if known else 2.5
    why = f"{_PCIE_SHARE:.0%} of PCIe {generation}.0 x{lanes}" if known else "prior: an unknown link as PCIe 4.0 x16"
    if profile is not None and profile.unified:
        link, spread = profile.memory_bytes_per_s.value / 2 / _PCIE_SHARE, 2.0
        why = "prior: a copy within one memory, read and written"
    pinned = Rate(value=link * _PCIE_SHARE, spread=spread, source="spec", why=why)
    # Pageable copies go through a staging buffer, at the host's memcpy rate at best.
    pageable_value = min(0.45 * pinned.value, 9e9)
    pageable = _prior(pageable_value, 1.6 * spread, "a pageable copy staged through pinned memory")
    return {
        "pinned_h2d_bytes_per_s": pinned,
        "pinned_d2h_bytes_per_s": pinned,
        "pageable_h2d_bytes_per_s": pageable,
        "pageable_d2h_bytes_per_s": replace(pageable, value=0.7 * pageable_value),
    }


def _timed(name: str, rate: MeasuredRate) -> Rate:
    return Rate(
        value=rate.value,
        spread=max(rate.spread, _SHAPES_SPREAD if name.endswith("flop_per_s") else 1.0),
        source="measured",
        why="timed by itself on this machine",
        when=rate.when,
    )


def believed(fitted: MeasuredRate, before: Rate, reach: float = 1.0) -> Rate:
    """What runs say, as far as their number carries it past what was believed before.

    Within ``before``'s interval, taken at least ``reach`` wide, one run is believed; further out it counts up to the
    interval's end, two runs half of the way from there, and three all of it. The interval still holds every run.
    """
    reach = max(reach, before.spread, _TIMED_REACH if before.source == "measured" else 1.0)
    end = min(max(fitted.value, before.value / reach), before.value * reach)
    value = end * (fitted.value / end) ** _TRUST[min(fitted.n, len(_TRUST)) - 1]
    apart = max(value / fitted.value, fitted.value / value)
    return Rate(
        value=value,
        spread=fitted.spread * apart,
        source="fitted",
        why=f"as {fitted.n} run{'s' * (fitted.n > 1)} of the model took",
        when=fitted.when,
    )
