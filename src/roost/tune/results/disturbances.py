"""What may have falsified a measurement, in a sentence each: outliers, slow first runs, and the GPU's conditions."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from roost.probes.machine.gpu import PcieLink
from roost.probes.machine.gpu_conditions import GpuConditions

# Ten standard deviations, by the median and the median absolute deviation, which outliers don't move.
_OUTLIER_SCORE = 10 * 1.4826
_LEAST_FACTOR = 1.05  # less is never worth a warning, however equal the other steps are
_LEAST_SAMPLES = 4
_REMEDIES = {
    "heat": "better cooling makes it faster, and figures that repeat",
    "power": "its power limit set its pace, as is usual in long runs",
}
_LEAST_SHARE = 0.1  # of the looks at a GPU: throttling for a moment is normal


def timing_warnings(samples: Mapping[str, Sequence[Sequence[float]]]) -> list[str]:
    """On step seconds of each candidate, by round: first rounds slower than the others, and lone slow steps."""
    warnings = []
    for name, rounds in samples.items():
        slow_first = _slow_first(rounds)
        if slow_first is not None:
            warnings.append(
                f"{name}: its first round was {slow_first:.2f} × as slow as the others; cold caches, or other work"
                " on the machine?"
            )
        counted = rounds[1:] if slow_first else rounds
        steps = [step for each in counted for step in each]
        factors = [step / statistics.median(steps) for step in outliers(steps)]
        if factors:
            warnings.append(
                f"{name}: {len(factors)} of {len(steps)} steps took up to {max(factors):.2f} × the median; end what"
                " else runs on this machine and measure again."
            )
    return warnings


def outliers(samples: Sequence[float]) -> list[float]:
    """The samples that are far slower than the median, by ten standard deviations and 5 %; none of fewer than four."""
    if len(samples) < _LEAST_SAMPLES:
        return []
    middle = statistics.median(samples)
    limit = _OUTLIER_SCORE * statistics.median(abs(each - middle) for each in samples)
    return [each for each in samples if each - middle > limit and each > _LEAST_FACTOR * middle]


def condition_warnings(trials: Sequence[Sequence[GpuConditions]]) -> list[str]:
    """On what each trial's looks at the GPU saw."""
    looks = [look for trial in trials for look in trial]
    return [*_throttling(looks), *_slow_link(looks), *_others(trials)]


def _slow_first(rounds: Sequence[Sequence[float]]) -> float | None:
    """How many times slower the first round was than the median of the others; None when it fits in."""
    medians = [statistics.median(each) for each in rounds if each]
    if len(medians) < 3:
        return None
    later = medians[1:]
    middle = statistics.median(later)
    spread = max(abs(each - middle) for each in later)
    slower = medians[0] - middle
    return medians[0] / middle if slower > max(5 * spread, (_LEAST_FACTOR - 1) * middle) else None


def _throttling(looks: Sequence[GpuConditions]) -> list[str]:
    counted = Counter(what for look in looks for what in look.throttled)
    clocks = [look.sm_clock_mhz for look in looks if look.sm_clock_mhz is not None]
    between = f" (SM clock {min(clocks)} to {max(clocks)} MHz)" if clocks else ""
    return [
        f"the GPU slowed itself down for {what} in {count} of {len(looks)} looks{between}; {_REMEDIES[what]}."
        for what, count in sorted(counted.items())
        if count >= _LEAST_SHARE * len(looks)
    ]


def _slow_link(looks: Sequence[GpuConditions]) -> list[str]:
    """Of the fastest link seen: an idle GPU lowers its own."""
    seen = [look.link for look in looks if _speed(look.link)]
    best = max(seen, key=_speed, default=None)
    can = max((look.fastest_link for look in looks), key=_speed, default=None)
    if best is None or can is None or _speed(best) >= _speed(can):
        return []
    return [
        f"the PCIe link ran as generation {best.generation} × {best.width} under load, and card and slot can do"
        f" {can.generation} × {can.width}: copies took {_speed(can) / _speed(best):.3g} × as long as they could;"
        " check the slot, a riser, or the BIOS's PCIe setting."
    ]


def _speed(link: PcieLink) -> float:
    """Proportional to bytes a second; each generation doubles the one before. 0 when unknown."""
    return link.width * 2.0**link.generation if link.generation and link.width else 0.0


def _others(trials: Sequence[Sequence[GpuConditions]]) -> list[str]:
    """A process that is there in two trials is no trial's own: each has a fresh one."""
    in_trials = Counter(pid for trial in trials for pid in {pid for look in trial for pid in look.pids})
    others = sorted(pid for pid, count in in_trials.items() if count > 1)
    if not others:
        return []
    listed = ", ".join(map(str, others[:5]))
    what = "process was" if len(others) == 1 else "processes were"
    return [f"{len(others)} other {what} on the GPU during the trials (pid {listed}); end them and measure again."]
