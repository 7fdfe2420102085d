"""How fast a card computes and its host link copies: every rate with its source and how far off it may be.

What large kernels reach of a data sheet are priors (``throughput``). They were not measured by this project; a measured
rate replaces each, and narrows its interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from roost.facts.machine import GpuFacts, GpuProfile
from roost.facts.rates import ARITHMETIC, HALF, SINGLE, RateKey
from roost.plan.figures import Rate
from roost.plan.measurements import MeasuredRate
from roost.plan.shares import Level
from roost.planner.cost.data_sheet_rates import reached
from roost.trace import OpClass

SINGLE_DTYPES = frozenset({"float32", "float64"})
LEVELS: tuple[Level, ...] = ("slow", "mid", "fast")
# Bytes per second and lane after line coding (8b/10b, 128b/130b, FLIT). Source: PCI-SIG base specifications.
_PCIE_LANE_BYTES_PER_S = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
# Headers of 256-byte packets, flow control and the driver leave about this share. Prior.
_PCIE_SHARE = 0.80
# NVML reads the slot. A card's name alone doesn't say what it is in: the generation before, or half of the lanes,
# halves the link. An RTX 5090 streamed Qwen-Image at 34 and 24 GB/s of 50 (github.com/sgl-project/sglang/pull/31538).
_LINK_SPREAD, _NAMED_LINK_DOWN = 1.2, 2.0
# Pageable copies go through a staging buffer, at the host's memcpy rate at best, and what comes back to new host memory
# faults it in first. Added seconds over bytes of published model offloads are 1.5 to 8.5 GB/s for both ways together.
_PAGEABLE_OF_PINNED, _PAGEABLE_MOST, _PAGEABLE_BACK = 0.30, 6e9, 0.6
_PAGEABLE_SPREAD, _PAGEABLE_DOWN = 1.9, 3.0
# How far off each class of operation may be from its prior in ``throughput``, up and down. Which kernel computes
# attention is known, and has an interval of its own. Slower is further off than faster: software can't beat a card, and
# what else a machine does, its cooling or a power limit only slow it. Publishers of one and the same case are up to 1.4
# times apart (FLUX.1-dev on an A800, 12.9 and 18 s).
_SPREADS: Mapping[OpClass, tuple[float, float]] = {"matmul": (1.2, 1.3), "attention": (1.2, 1.25), "conv": (1.6, 1.6)}
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
    """What the cost model divides by, every key of it. Bytes, FLOP and launches per second."""

    by_key: Mapping[RateKey, Rate]

    def __getitem__(self, key: RateKey) -> Rate:
        return self.by_key[key]

    def changed(self, rates: Mapping[RateKey, Rate]) -> Rates:
        """The same but for these."""
        return Rates(by_key={**self.by_key, **rates})

    def at(self, level: Level) -> Speeds:
        """Plain figures at one end of every interval."""
        return Speeds(values={key: rate.at(level) for key, rate in self.by_key.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """All rates as plain figures."""

    values: Mapping[RateKey, float]

    def __getitem__(self, key: RateKey) -> float:
        return self.values[key]

    def flop_per_s(self, op_class: OpClass, *, single: bool) -> float | None:
        """The rate of one class of operations; None for those that only move memory."""
        if op_class == "elementwise":
            return None
        return self.values[(SINGLE if single else HALF)[op_class]]


def single_dtypes_of(profile: GpuProfile | None) -> frozenset[str]:
    """The dtypes that run at the ``single`` rates: float32, and bfloat16 on a card whose tensor cores lack it."""
    return SINGLE_DTYPES if profile is None or profile.bf16_flop_per_s else SINGLE_DTYPES | {"bfloat16"}


def rates_of(
    gpu: GpuFacts,
    profile: GpuProfile | None,
    timed: Mapping[RateKey, MeasuredRate] | None = None,
    fitted: Mapping[RateKey, MeasuredRate] | None = None,
) -> Rates:
    """The card's rates: its data sheet's or a wide guess, replaced by timed ones, moved by those fitted to runs."""
    memory = profile.memory_bytes_per_s.value if profile else 4e11
    found = _flop_rates(profile) | _link_rates(gpu, profile)
    found[RateKey.MEMORY] = Rate(
        value=memory * _MEMORY_SHARE,
        spread=_MEMORY_SPREAD if profile else _UNKNOWN_SPREAD,
        source="spec",
        why=f"{_MEMORY_SHARE:.0%} of {memory / 1e9:.0f} GB/s",
    )
    found |= _HOST_RATES
    found |= {key: _timed(key, each) for key, each in (timed or {}).items()}
    reach = _EMULATED_REACH if gpu.device_kind == "emulated" else 1.0
    found |= {key: believed(each, found[key], reach) for key, each in (fitted or {}).items()}
    return Rates(by_key={key: found[key] for key in RateKey})


def _flop_rates(profile: GpuProfile | None) -> dict[RateKey, Rate]:
    found = reached(profile) if profile else {}
    rates = {}
    for op_class, (spread, down) in _SPREADS.items():
        for key, guess, wider in (
            (HALF[op_class], _GUESS_FLOP_PER_S, 1.0),
            (SINGLE[op_class], _GUESS_FLOP_PER_S / 8, 1.3),
        ):
            rates[key] = Rate(
                value=found[key].flop_per_s if found else guess,
                spread=spread * wider if found else _UNKNOWN_SPREAD,
                down=down * wider if found else None,
                source="spec",
                why=found[key].why if found else "no data sheet for this card",
            )
    return rates


def _prior(value: float, spread: float, why: str) -> Rate:
    return Rate(value=value, spread=spread, source="spec", why=f"prior: {why}", prior=True)


_HOST_RATES = {
    RateKey.KERNELS: _prior(1 / 7e-6, 1.6, "7 µs a bare launch; eager model code takes five a kernel"),
    RateKey.DISK: _prior(2e9, 2.5, "an NVMe disk read through the page cache"),
    RateKey.PIN: _prior(4e9, 2.0, "faulting in and registering host pages"),
    RateKey.CAST: _prior(3e9, 2.0, "casting on the host"),
}


def _link_rates(gpu: GpuFacts, profile: GpuProfile | None) -> dict[RateKey, Rate]:
    """Host to device and back, by the tier of the host copy. What NVML reports of the slot beats the data sheet."""
    generation = gpu.pcie_generation or (
        int(profile.pcie_generation.value) if profile and profile.pcie_generation else 0
    )
    lanes = gpu.pcie_width or (int(profile.pcie_lanes.value) if profile and profile.pcie_lanes else 0)
    known = generation in _PCIE_LANE_BYTES_PER_S and lanes > 0
    link = _PCIE_LANE_BYTES_PER_S[generation] * lanes if known else _PCIE_LANE_BYTES_PER_S[4] * 16
    spread, prior = (_LINK_SPREAD, False) if known else (2.5, True)
    of_name = gpu.named or not (gpu.pcie_generation and gpu.pcie_width)
    down = _NAMED_LINK_DOWN if known and of_name else None
    why = f"{_PCIE_SHARE:.0%} of PCIe {generation}.0 x{lanes}" if known else "prior: an unknown link as PCIe 4.0 x16"
    if profile is not None and profile.unified:
        link, spread, prior, down = profile.memory_bytes_per_s.value / 2 / _PCIE_SHARE, 2.0, True, None
        why = "prior: a copy within one memory, read and written"
    pinned = Rate(value=link * _PCIE_SHARE, spread=spread, source="spec", why=why, prior=prior, down=down)
    pageable = replace(
        _prior(
            min(_PAGEABLE_OF_PINNED * pinned.value, _PAGEABLE_MOST),
            _PAGEABLE_SPREAD,
            "a pageable copy staged through pinned memory",
        ),
        down=_PAGEABLE_DOWN,
    )
    return {
        RateKey.PINNED_H2D: pinned,
        RateKey.PINNED_D2H: pinned,
        RateKey.PAGEABLE_H2D: pageable,
        RateKey.PAGEABLE_D2H: replace(pageable, value=_PAGEABLE_BACK * pageable.value),
    }


def _timed(key: RateKey, rate: MeasuredRate) -> Rate:
    return Rate(
        value=rate.value,
        spread=max(rate.spread, _SHAPES_SPREAD if key in ARITHMETIC else 1.0),
        source="measured",
        why="timed by itself on this machine",
        when=rate.when,
    )


def believed(fitted: MeasuredRate, before: Rate, reach: float = 1.0) -> Rate:
    """What runs say, as far as their number carries it past what was believed before.

    Within ``before``'s interval, taken at least ``reach`` wide, one run is believed; further out it counts up to the
    interval's end, two runs half of the way from there, and three all of it. The interval still holds every run.
    """
    reach = max(reach, _TIMED_REACH if before.source == "measured" else 1.0)
    least, most = before.value / max(reach, before.below), before.value * max(reach, before.spread)
    end = min(max(fitted.value, least), most)
    value = end * (fitted.value / end) ** _TRUST[min(fitted.n, len(_TRUST)) - 1]
    apart = max(value / fitted.value, fitted.value / value)
    return Rate(
        value=value,
        spread=fitted.spread * apart,
        source="fitted",
        why=f"as {fitted.n} run{'s' * (fitted.n > 1)} of the model took",
        when=fitted.when,
    )
