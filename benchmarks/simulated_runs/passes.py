"""One contestant's passes on a virtual card: seconds between events on its compute stream, and what it called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from denoisers import Denoiser
from foreseen import COUNTED, WARM
from op_costs import OpCosts
from simulated import count_anew, counters, violations
from virtual_cards import VirtualCard


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """One pass, or the mean of several. Seconds are virtual, bytes what was copied or the peak meanwhile."""

    seconds: float
    compute_s: float
    h2d_bytes: float
    d2h_bytes: float
    syncs: float
    blocking_copies: float
    pageable_copies: float
    mallocs: float
    allocated_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Both kinds of passes. ``preloaded_bytes`` were on the card before the first pass began, weights above all.

    ``first.seconds`` includes copying those at the pinned rate, so that nobody gains by loading before.
    """

    first: Passes
    steady: Passes
    preloaded_bytes: int
    pinned_bytes: int
    violations: list[str]

    @property
    def reserved_bytes(self) -> int:
        return max(self.first.reserved_bytes, self.steady.reserved_bytes)

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "reserved_bytes": self.reserved_bytes}


def run(denoiser: Denoiser, card: VirtualCard, enter: Callable[[Denoiser], Callable[..., Any]]) -> Run:
    """Has a contestant take the denoiser and call it some times, as the steps of a generation would."""
    card.tell_rates()
    with OpCosts(card):
        call = enter(denoiser)
        torch.cuda.synchronize()
        preloaded_bytes = torch.cuda.memory_allocated()
        given = denoiser.family.inputs()
        torch.cuda.synchronize()  # the first pass begins with an idle card; others begin as they come
        first = _measured(call, given, 1, preloaded_bytes / card.link_bytes_per_s)
        for _ in range(WARM - 1):
            call(**given)
        steady = _measured(call, given, COUNTED)
    return Run(
        first=first,
        steady=steady,
        preloaded_bytes=preloaded_bytes,
        pinned_bytes=int(counters()["pinned_bytes"]),
        violations=violations(),
    )


def _measured(call: Callable[..., Any], given: dict[str, Any], times: int, before_s: float = 0.0) -> Passes:
    """So many passes; ``before_s`` belong to the first."""
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    count_anew()
    torch.cuda.reset_peak_memory_stats()
    began.record()
    for _ in range(times):
        call(**given)
    ended.record()
    counted = counters()
    torch.cuda.synchronize()
    names = ("h2d_bytes", "d2h_bytes", "syncs", "blocking_copies", "pageable_copies", "mallocs")
    return Passes(
        seconds=began.elapsed_time(ended) / 1e3 / times + before_s,
        compute_s=counted["compute_busy_s"] / times,
        allocated_bytes=torch.cuda.max_memory_allocated(),
        reserved_bytes=torch.cuda.max_memory_reserved(),
        **{name: counted[name] / times for name in names},
    )
