"""How one rate is timed: warmed up, enough work for each sample, the median of several."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from roost.residency.device.interface import Device

SAMPLES = 5
# A sample this long is far above what starting and ending it takes.
_SAMPLE_S = 0.08
_MOST_REPEATS = 4096

TimedWork = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A rate per second: the median of ``n`` samples, which all lie within ``value`` times or divided by ``spread``."""

    value: float
    spread: float
    n: int


def timed_on_device(device: Device, work: TimedWork, amount: float) -> Reading:
    """The rate of work that is enqueued on the compute lane, by the device's own clock; ``amount`` is one call's."""

    def seconds(repeats: int) -> float:
        device.synchronize()
        began = device.mark()
        for _ in range(repeats):
            work()
        ended = device.mark()
        device.synchronize()
        return device.seconds_between(began, ended)

    return _reading(seconds, amount)


def timed_on_host(device: Device, work: TimedWork, amount: float) -> Reading:
    """The rate of work that the host takes part in, from its start until all lanes are idle."""

    def seconds(repeats: int) -> float:
        device.synchronize()
        began_s = time.perf_counter()
        for _ in range(repeats):
            work()
        device.synchronize()
        return time.perf_counter() - began_s

    return _reading(seconds, amount)


def reading_of(rates: Sequence[float]) -> Reading:
    """The median of some samples of a rate, and how far they spread."""
    middle = median(rates)
    return Reading(value=middle, spread=max(middle / min(rates), max(rates) / middle), n=len(rates))


def _reading(seconds: Callable[[int], float], amount: float) -> Reading:
    seconds(1)  # the first call chooses kernels and takes memory
    repeats = 1
    while (took := seconds(repeats)) < _SAMPLE_S / 2 and repeats < _MOST_REPEATS:
        repeats *= 2
    repeats = min(_MOST_REPEATS, max(1, round(repeats * _SAMPLE_S / max(took, 1e-9))))
    return reading_of([repeats * amount / seconds(repeats) for _ in range(SAMPLES)])
