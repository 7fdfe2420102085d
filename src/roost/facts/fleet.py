"""A fleet: the hosts and cards that several workers are planned for. Source: ``--fleet``, as typed or in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

# One card alone; the whole pipeline on every card; one encoder-decoder pool beside denoisers; all roles apart; shards.
LayoutName = Literal["single", "replicas", "shared", "roles", "fsdp"]
LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)  # the simplest first


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHost:
    """One machine with its cards by name, in their order. None is not said."""

    name: str
    cards: tuple[str, ...]
    vram_bytes: int | None = None  # free on each card
    ram_bytes: int | None = None
    memory_bytes_per_s: float | None = None  # what all links of the host may read of its memory together


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
    hosts: tuple[FleetHost, ...]
    links: tuple[HostLink, ...] = ()
    failures: FailureRate | None = None

    @property
    def card_count(self) -> int:
        return sum(len(host.cards) for host in self.hosts)
