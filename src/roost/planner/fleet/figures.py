"""What a layout serves, by simulation, and what it takes of each host's memory; each with its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from roost.facts.machine import Fleet
from roost.plan.figures import BytesInterval, SecondsInterval, TraceRecord
from roost.plan.fleet import RateInterval
from roost.plan.shares import Level
from roost.planner.cost.rates import LEVELS
from roost.planner.fleet.host_memory import HostNeed, host_memory
from roost.planner.fleet.layouts import Layout
from roost.planner.fleet.service import Step, Worker, added, at
from roost.planner.fleet.simulation import Failure, Line, Outcome, Pool, simulate
from roost.planner.rules.roles import role_of

_ORDER: tuple[Step, ...] = ("generate", "encode", "denoise", "decode")
# Bytes per second of what one worker gives another: written, sent and read again. Priors, this many times off.
_WITHIN_HOST, _BETWEEN_HOSTS = 2e9, 1.25e9
_TRANSFER_SPREAD = 2.0

# Seconds between the deaths of a worker by its number, in units of their mean.
Lives = Callable[[int], Iterator[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is asked of a fleet: seconds at which requests arrive, and what draws the lives of workers.

    ``rate`` are the arrivals per second; None where all come at once.
    """

    arrivals: tuple[float, ...]
    rate: float | None
    lives: Lives


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutFigures:
    requests_per_s: RateInterval
    request_s: SecondsInterval
    hosts: tuple[HostNeed, ...]
    peak_bytes: BytesInterval  # of the worker that takes most
    outcome: Outcome  # by the mid figures

    @property
    def host_bytes(self) -> BytesInterval:
        """Of the fullest host."""
        return max((each.bytes for each in self.hosts), key=lambda each: each.high)


def figures_of(layout: Layout, fleet: Fleet, demand: Demand) -> LayoutFigures:
    """The figures of a layout that has workers."""
    found = {level: _simulated(_line(layout, fleet, level), fleet, demand) for level in LEVELS}
    rates = {level: outcome.requests_per_s for level, outcome in found.items()}
    return LayoutFigures(
        requests_per_s=RateInterval(low=min(rates.values()), mid=rates["mid"], high=max(rates.values())),
        request_s=_request_s(layout, fleet),
        hosts=host_memory(layout.workers),
        peak_bytes=max((each.planned.peak_bytes for each in layout.workers), key=lambda each: each.high),
        outcome=found["mid"],
    )


def _simulated(line: Line, fleet: Fleet, demand: Demand) -> Outcome:
    return simulate(line, demand.arrivals, _failures(line, fleet, demand))


def _failures(line: Line, fleet: Fleet, demand: Demand) -> list[Failure]:
    """Deaths of every worker for as long as the requests may take."""
    if fleet.failures is None:
        return []
    rate, found = fleet.failures, list[Failure]()
    slowest_s = max(sum(seconds) for pool in line.pools for seconds in pool.seconds)
    end_s = demand.arrivals[-1] + 2 * slowest_s * (1 + len(demand.arrivals) / min(len(p.seconds) for p in line.pools))
    places = [(number, worker) for number, pool in enumerate(line.pools) for worker in range(len(pool.seconds))]
    for index, (pool, worker) in enumerate(places):
        now_s = 0.0
        for life in demand.lives(index):
            now_s += life * rate.mean_s
            if now_s > end_s:
                break
            found.append(Failure(pool=pool, worker=worker, at_s=now_s, down_s=rate.restart_s))
            now_s += rate.restart_s
    return found


def _line(layout: Layout, fleet: Fleet, level: Level) -> Line:
    steps = _steps(layout.workers)
    pools = []
    for role in layout.roles:
        mine = [each for each in layout.workers if each.planned.role == role]
        does = [step for step in steps if step in mine[0].planned.seconds]
        seconds = tuple(tuple(at(each.planned.seconds[step], level) for step in does) for each in mine)
        pools.append(Pool(role=role, steps=tuple(map(steps.index, does)), seconds=seconds))
    return Line(pools=tuple(pools), gaps_s=tuple(at(each, level) for each in _gaps(layout, fleet)))


def _steps(workers: Sequence[Worker]) -> list[Step]:
    """What is done of a request, in order."""
    return [step for step in _ORDER if any(step in each.planned.seconds for each in workers)]


def _gaps(layout: Layout, fleet: Fleet) -> list[SecondsInterval]:
    """Seconds in which embeddings go to the denoiser, and latents to the decoder."""
    steps = _steps(layout.workers)
    trace = layout.workers[0].planned.plan.trace
    if len(steps) == 1 or trace is None:
        return []
    sent_bytes = _sent_bytes(trace)
    found = []
    for step, then in pairwise(steps):
        hosts = {each.seat.host for each in layout.workers if step in each.planned.seconds}
        hosts_then = {each.seat.host for each in layout.workers if then in each.planned.seconds}
        slowest = min(_bytes_per_s(fleet, one, other) for one in hosts for other in hosts_then)
        mid_s = sent_bytes[step] / slowest
        found.append(SecondsInterval(low=mid_s / _TRANSFER_SPREAD, mid=mid_s, high=mid_s * _TRANSFER_SPREAD))
    return found


def _sent_bytes(trace: TraceRecord) -> Mapping[Step, int]:
    """All that encoders give, and what the last call of a denoiser does."""
    encoded = sum(use.calls * use.output_bytes for use in trace.uses if role_of(use.component) == "encoder")
    denoised = max((use.output_bytes for use in trace.uses if role_of(use.component) == "denoiser"), default=0)
    return {"encode": encoded, "denoise": denoised}


def _bytes_per_s(fleet: Fleet, one: str, other: str) -> float:
    if one == other:
        return _WITHIN_HOST
    named = (link.bytes_per_s for link in fleet.links if set(link.between) == {one, other})
    return next(named, _BETWEEN_HOSTS)


def _request_s(layout: Layout, fleet: Fleet) -> SecondsInterval:
    """One request in an idle fleet: of each step's workers the quickest and the slowest, and all by their share."""
    parts = []
    for step in _steps(layout.workers):
        found = [each.planned.seconds[step] for each in layout.workers if step in each.planned.seconds]
        per_s = sum(1 / max(each.mid, 1e-9) for each in found)
        low, high = min(each.low for each in found), max(each.high for each in found)
        parts.append(SecondsInterval(low=low, mid=len(found) / per_s, high=high))
    return added([*parts, *_gaps(layout, fleet)])
