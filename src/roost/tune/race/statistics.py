"""What the rounds so far say of each candidate: levels and noise in log time, paired comparisons, Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

# Logarithms of seconds a step, by candidate and round. In log time a drift of the machine adds the same to everyone
# in a round, and a ratio is a difference.
Laps = Mapping[str, Mapping[int, float]]

_SWEEPS = 12  # of the fit below; it converges at once where everyone ran every round
_DISTURBED_SIGMAS = 6
_DISTURBED_LEAST = math.log(1.05)  # less is noise, however quiet the others were
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The spread of one round of one candidate, as a standard deviation in log time, pooled over the field."""

    sigma: float
    freedom: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How many times longer than a rival a candidate takes: the log of the ratio and its standard error."""

    log_ratio: float
    error: float
    freedom: int

    def bounds(self, doubt: float) -> tuple[float, float]:
        """The interval that misses the true log ratio on each side with a chance of ``doubt``."""
        reach = t_quantile(1 - doubt, self.freedom) * self.error
        return self.log_ratio - reach, self.log_ratio + reach


def undisturbed(laps: Laps) -> dict[str, dict[int, float]]:
    """``laps`` without the rounds in which something held a candidate up: slow first runs, other work on the machine.

    Such a round is far slower than the candidate's fastest, after what the whole round was slower; only slow, since
    nothing makes a GPU faster than it is. At most half of two rounds and a third of more are taken out: what happens
    more often is the candidate's nature.
    """
    own, rounds = _fit(laps, statistics.median)
    rest = {name: {r: each - rounds[r] for r, each in lap.items()} for name, lap in laps.items()}
    spread = [abs(each - own[name]) for name, lap in rest.items() for each in lap.values() if len(lap) > 1]
    limit = max(_DISTURBED_LEAST, _DISTURBED_SIGMAS * _MAD_TO_SIGMA * statistics.median(spread) if spread else 0.0)
    kept = {}
    for name, lap in rest.items():
        slow = [r for r, each in lap.items() if each > min(lap.values()) + limit]
        few = len(slow) <= max(len(lap) // 3, len(lap) // 2 if len(lap) == 2 else 0)
        kept[name] = {r: each for r, each in laps[name].items() if not (few and r in slow)}
    return kept


def levels(laps: Laps) -> dict[str, float]:
    """Each candidate's log time with the rounds' own differences taken out."""
    return _fit(laps, statistics.fmean)[0]


def noise_of(laps: Laps) -> Noise | None:
    """The residual spread of candidate + round; None while nobody has been in two rounds with somebody else."""
    own, rounds = _fit(laps, statistics.fmean)
    rest = [each - own[name] - rounds[r] for name, lap in laps.items() for r, each in lap.items()]
    freedom = len(rest) - len(own) - len(rounds) + 1
    if freedom < 1:
        return None
    return Noise(sigma=math.sqrt(sum(each * each for each in rest) / freedom), freedom=freedom)


def pairs_of(laps: Laps, name: str, rival: str) -> list[float]:
    """The log ratios of ``name`` to ``rival`` in the rounds that both were in."""
    return [laps[name][r] - laps[rival][r] for r in laps[name].keys() & laps[rival].keys()]


def compare(laps: Laps, name: str, rival: str, noise: Noise) -> Comparison | None:
    """``name`` against ``rival`` over the rounds that both were in; None without any.

    The standard error is the field's, or this pair's own where that is larger: one that varies more than the others
    is judged by its own spread.
    """
    pairs = pairs_of(laps, name, rival)
    if not pairs:
        return None
    spread = max(math.sqrt(2) * noise.sigma, statistics.stdev(pairs) if len(pairs) > 1 else 0.0)
    return Comparison(log_ratio=statistics.fmean(pairs), error=spread / math.sqrt(len(pairs)), freedom=noise.freedom)


def _fit(laps: Laps, centre: Callable[[Iterable[float]], float]) -> tuple[dict[str, float], dict[int, float]]:
    """The additive fit log time = candidate + round, by sweeps; the first round is the zero of the rounds."""
    held = {name: lap for name, lap in laps.items() if lap}
    numbers = sorted({r for lap in held.values() for r in lap})
    rounds = dict.fromkeys(numbers, 0.0)
    own: dict[str, float] = {}
    for _ in range(_SWEEPS):
        own = {name: centre([each - rounds[r] for r, each in lap.items()]) for name, lap in held.items()}
        rounds = {r: centre([lap[r] - own[name] for name, lap in held.items() if r in lap]) for r in numbers}
    return own, rounds


# Quantiles of Student's t, from the closed form that whole degrees of freedom have.


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
