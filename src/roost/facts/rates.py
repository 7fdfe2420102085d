"""The rates of a card and its host that are measured, fitted and divided by: one key for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeVar

Value = TypeVar("Value")


class RateKey(StrEnum):
    """A rate per second; its value is how plans, measurements and JSON spell it.

    The ``SINGLE`` ones are of float32. Copies are from (``H2D``) or to a ``PINNED`` or ``PAGEABLE`` place in host
    memory. ``KERNELS`` are those that the host can launch.
    """

    MATMUL = "matmul_flop_per_s"
    ATTENTION = "attention_flop_per_s"
    CONV = "conv_flop_per_s"
    SINGLE_MATMUL = "single_matmul_flop_per_s"
    SINGLE_ATTENTION = "single_attention_flop_per_s"
    SINGLE_CONV = "single_conv_flop_per_s"
    MEMORY = "memory_bytes_per_s"
    KERNELS = "kernels_per_s"
    PINNED_H2D = "pinned_h2d_bytes_per_s"
    PINNED_D2H = "pinned_d2h_bytes_per_s"
    PAGEABLE_H2D = "pageable_h2d_bytes_per_s"
    PAGEABLE_D2H = "pageable_d2h_bytes_per_s"
    DISK = "disk_bytes_per_s"
    PIN = "pin_bytes_per_s"
    CAST = "cast_bytes_per_s"


# Arithmetic by class of operation, in half precision and in float32.
HALF: Mapping[str, RateKey] = {"matmul": RateKey.MATMUL, "attention": RateKey.ATTENTION, "conv": RateKey.CONV}
SINGLE: Mapping[str, RateKey] = {
    "matmul": RateKey.SINGLE_MATMUL,
    "attention": RateKey.SINGLE_ATTENTION,
    "conv": RateKey.SINGLE_CONV,
}
ARITHMETIC = frozenset((*HALF.values(), *SINGLE.values()))
# To the device, by the tier of the host's copy.
H2D: Mapping[str, RateKey] = {"pinned": RateKey.PINNED_H2D, "pageable": RateKey.PAGEABLE_H2D}
LINKS = (RateKey.PINNED_H2D, RateKey.PINNED_D2H, RateKey.PAGEABLE_H2D, RateKey.PAGEABLE_D2H)
# What does not depend on the model: copies, and the device's memory.
MODELLESS = frozenset((*LINKS, RateKey.DISK, RateKey.MEMORY))


def known_rates(by_name: Mapping[str, Value]) -> dict[RateKey, Value]:
    """A file's rates; names that a newer version wrote are left out."""
    return {key: by_name[key.value] for key in RateKey if key.value in by_name}


def spelled_rates(by_key: Iterable[tuple[RateKey, Value]]) -> dict[str, Value]:
    """Rates as a file has them."""
    return {key.value: value for key, value in by_key}
