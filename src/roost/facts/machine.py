"""A machine as it was found, and a card as it is known by name. Each fact says where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from roost.facts.limits import Bytes, Name, Positive

Platform = Literal["cuda", "rocm", "cpu"]


DeviceKind = Literal["cuda", "emulated"]


Lane = Literal["compute", "copy"]  # a device's two queues


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """One GPU, present (NVML), named (profile) or emulated, at one moment."""

    device_kind: DeviceKind
    platform: Platform
    name: Name
    total_bytes: Bytes
    free_bytes: Bytes
    source: Name  # for people
    profile: Name | None  # key under profiles/gpus
    uuid: Name | None
    driver: Name | None
    compute_capability: Name | None
    pcie_generation: Positive | None
    pcie_width: Positive | None
    unified: bool = False  # its memory is the host's own: one pool
    named: bool = False  # isn't here: its profile describes it
    vram_typed: bool = False  # a card's free memory is what the user said; the emulated one's always is


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """Host memory that a run may take. Source: cgroups and MemAvailable, or ``--ram``."""

    available_bytes: Bytes
    pinnable_bytes: Bytes
    source: Name  # for people
    ram_typed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    gpu: GpuFacts
    host: HostFacts
    headroom_bytes: int

    @property
    def budget_bytes(self) -> int:
        """VRAM that a plan may use."""
        return max(0, self.gpu.free_bytes - self.headroom_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A figure and where it comes from: a data sheet's address, ``measured`` or ``fitted``."""

    value: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProfile:
    """A card's published figures. Rates are dense, per second. Source: profiles/gpus/KEY.yaml."""

    key: str
    name: str  # as NVML reports the product
    aliases: tuple[str, ...]
    platform: Platform
    compute_capability: str | None
    total_bytes: Number
    memory_bytes_per_s: Number
    bf16_flop_per_s: Number | None
    fp16_flop_per_s: Number | None
    fp32_flop_per_s: Number | None  # without tensor cores
    fp8_flop_per_s: Number | None
    pcie_generation: Number | None
    pcie_lanes: Number | None
    power_w: Number | None  # of the board
    unified: bool = False  # shares one memory with the host
