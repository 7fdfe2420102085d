"""Quantiles of Student's t, from the closed form that whole degrees of freedom have."""

from __future__ import annotations

import math
from functools import lru_cache

_HALVINGS = 80  # of an interval that doubles until it holds the quantile: to the last bits of a float


@lru_cache(maxsize=4096)
def t_quantile(probability: float, freedom: int) -> float:
    """The value that Student's t with ``freedom`` degrees stays below with ``probability``, which is in [0.5, 1)."""
    if freedom < 1 or not 0.5 <= probability < 1:
        raise ValueError(f"no quantile of t for probability {probability} and {freedom} degrees of freedom")
    low, high = 0.0, 1.0
    while below(high, freedom) < probability:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def below(t: float, freedom: int) -> float:
    """The probability that Student's t with ``freedom`` degrees is below ``t`` ≥ 0.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    series = 0.0
    for step in range(1, freedom // 2 + 1):
        series += term
        term *= cosine * cosine * (2 * step / (2 * step + 1) if odd else (2 * step - 1) / (2 * step))
    between = 2 / math.pi * (angle + sine * series) if odd else sine * series
    return 0.5 + between / 2
