"""Rates by their names in a plan, for people."""

from __future__ import annotations

from roost.units import format_rate


def rate_name(name: str) -> str:
    """``float32 matmul`` for ``single_matmul_flop_per_s``."""
    plain = name.removesuffix("_per_s").removesuffix("_flop").removesuffix("_bytes")
    return plain.replace("single_", "float32_").replace("_", " ")


def rate_value(name: str, per_s: float) -> str:
    """The figure with the unit that its name says."""
    return format_rate(per_s, "FLOP" if name.endswith("flop_per_s") else "B" if name.endswith("bytes_per_s") else "")
