"""The cards of the simulated race: what the planner believes of them, told to the simulated GPU."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from simulated import runtime

from roost.api.machine import gpu_of_profile
from roost.facts.rates import RateKey
from roost.planner.cost.rates import Speeds, rates_of
from roost.profiles.gpus import find_gpu_profile

MIB = 2**20
HOST_COPY_BYTES_PER_S = 10e9  # from memory to memory; a guess that is the same for all
# Of consumer cards and of data centres, with compute fast and slow beside the link.
CARDS = ("rtx-3060", "rtx-4090", "rtx-5090", "a100-40gb")


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualCard:
    """A card's memory, and the planner's middle rates of it: bytes, FLOP per second, bytes per second."""

    name: str
    total_bytes: int
    capability: str
    speeds: Speeds

    @property
    def link_bytes_per_s(self) -> float:
        return self.speeds[RateKey.PINNED_H2D]

    @property
    def memory_bytes_per_s(self) -> float:
        return self.speeds[RateKey.MEMORY]

    def variables(self, total_bytes: int | None = None) -> dict[str, str]:
        """What the simulated GPU reads before CUDA starts; weights and pictures stay untouched."""
        return {
            "SIM_TOTAL_MIB": str((total_bytes or self.total_bytes) // MIB),
            "SIM_CC": self.capability.replace(".", ""),
            "SIM_NAME": self.name,
            "SIM_NO_COPY": "1",
        }

    def tell_rates(self) -> None:
        """Sets the rates of copies; what ops cost is said op by op."""
        rates = (self.link_bytes_per_s, self.speeds[RateKey.PAGEABLE_H2D], self.memory_bytes_per_s)
        values = (ctypes.c_double * 4)(*rates, HOST_COPY_BYTES_PER_S)
        runtime().sim_configure(values, 4)


def virtual_card(key: str) -> VirtualCard:
    """The card of one profile under ``profiles/gpus``."""
    profile = find_gpu_profile(key)
    gpu = gpu_of_profile(profile)
    return VirtualCard(
        name=key,
        total_bytes=gpu.total_bytes,
        capability=profile.compute_capability or "9.0",
        speeds=rates_of(gpu, profile).at("mid"),
    )
