"""A machine as it was found, a card as it is known by name, and a fleet as it was typed: each fact with its source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from roost.facts.limits import Bytes, Name, Positive
from roost.units import GiB, MiB

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


# What a run's process takes of host memory beside weights, by its device. The interpreter, the libraries and what they
# work with: 300 MiB when they are imported, below 700 in trials on CPUs. CUDA's first calls bring 1.2 GiB more (prior,
# from the figures in pytorch#106511 and pytorch#12873: driver, kernels, cuBLAS, cuDNN).
PROCESS_BYTES: Mapping[DeviceKind, int] = {"emulated": 700 * MiB, "cuda": 2 * GiB}
# What a system, its services and a desktop take of a machine's memory, at the least and of a large one. Prior.
_LEAST_SYSTEM_BYTES, _SYSTEM_PERCENT = 2 * GiB, 8


def system_bytes_of(ram_bytes: int) -> int:
    """What a machine with so much memory needs of it for everything but the run."""
    return max(_LEAST_SYSTEM_BYTES, ram_bytes * _SYSTEM_PERCENT // 100)


def ram_leaving(available_bytes: int, process_bytes: int) -> int:
    """The least memory of a machine that leaves so much beside its system and the process."""
    needed_bytes = available_bytes + process_bytes
    return max(needed_bytes + _LEAST_SYSTEM_BYTES, -(-needed_bytes * 100 // (100 - _SYSTEM_PERCENT)))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """Host memory that a run's masters may take. Source: cgroups and MemAvailable, or ``--ram``.

    ``system_bytes`` and ``process_bytes`` are what was subtracted of either for it: the system's reserve, which what is
    found available has no part of, and what the process needs beside masters and has not taken yet. Plans of 0.2 and
    before subtracted nothing.
    """

    available_bytes: Bytes
    pinnable_bytes: Bytes
    source: Name  # for people
    ram_typed: bool = False
    system_bytes: Bytes = 0
    process_bytes: Bytes = 0

    @property
    def reserved_bytes(self) -> int:
        """What was subtracted in all."""
        return self.system_bytes + self.process_bytes

    @property
    def there_bytes(self) -> int:
        """What was typed or found."""
        return self.available_bytes + self.reserved_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    gpu: GpuFacts
    host: HostFacts
    headroom_bytes: int

    @property
    def budget_bytes(self) -> int:
        """VRAM that a plan may use."""
        return max(0, self.gpu.free_bytes - self.headroom_bytes)

    @property
    def limit_bytes(self) -> int:
        """VRAM that the run's allocator may reserve."""
        return allocator_limit(self.budget_bytes, self.headroom_bytes)


def allocator_limit(budget_bytes: int, headroom_bytes: int) -> int:
    """What an allocator may reserve of the device for what a plan of that budget allocates.

    A caching allocator can't use all that it reserves: gaps are what half of the headroom is for. The other half is
    left for the process's context and for the device's other users.
    """
    return budget_bytes + headroom_bytes // 2


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


@dataclass(frozen=True, slots=True, kw_only=True)
class HostBandwidth:
    """What a host's memory gives all of its cards' links together; None is not said.

    ``numa_bytes_per_s`` is what all links between its NUMA nodes carry.
    """

    memory_bytes_per_s: float | None = None
    numa_nodes: int = 1
    numa_bytes_per_s: float | None = None

    @property
    def interleaved_bytes_per_s(self) -> float:
        """What links between nodes let through of reads of memory that lies on all nodes by turns."""
        if self.numa_nodes < 2 or self.numa_bytes_per_s is None:
            return math.inf
        return self.numa_bytes_per_s * self.numa_nodes / (self.numa_nodes - 1)  # the rest is read on its own node


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHost:
    """One machine with its cards by name, in their order. None is not said."""

    name: str
    cards: tuple[str, ...]
    vram_bytes: int | None = None  # free on each card
    ram_bytes: int | None = None
    bandwidth: HostBandwidth = field(default_factory=HostBandwidth)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLink:
    """The network between two hosts, in both directions."""

    between: tuple[str, str]
    bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRate:
    """How often a worker dies, and how long it takes to be back."""

    mean_s: float
    restart_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The hosts and cards that several workers are planned for. Source: ``--fleet``, as typed or in a file."""

    hosts: tuple[FleetHost, ...]
    links: tuple[HostLink, ...] = ()
    failures: FailureRate | None = None

    @property
    def card_count(self) -> int:
        return sum(len(host.cards) for host in self.hosts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Which of ``world`` processes this is, and which of those on its host. Source: torchrun's environment."""

    rank: int
    world: int
    local_rank: int
    local_world: int
