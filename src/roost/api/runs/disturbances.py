"""What disturbed a run on a GPU, so that its seconds teach nothing: heat that slowed the card, others on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from roost.api.machine import present_gpu
from roost.errors import RoostError
from roost.facts.machine import DeviceKind
from roost.probes.machine.gpu_conditions import ConditionSampler, GpuConditions

# Of the looks at a GPU: for a moment any card is hot. A power limit is no disturbance, but the card's own pace.
_LEAST_SHARE = 0.1

Disturbances = Callable[[], tuple[str, ...]]


@contextmanager
def watched(device_kind: DeviceKind) -> Iterator[Disturbances]:
    """Looks at the GPU that runs while the context lasts; what it gives tells what disturbed it, in a sentence each."""
    uuid = _uuid() if device_kind == "cuda" else None
    if uuid is None:
        yield tuple
        return
    with ConditionSampler(uuid) as sampler:
        yield lambda: disturbances_of(sampler.looks, os.getpid())


def _uuid() -> str | None:
    try:
        return present_gpu().uuid
    except RoostError:
        return None


def disturbances_of(looks: Sequence[GpuConditions], own_pid: int) -> tuple[str, ...]:
    """What the looks at a GPU say against the speed of the one process ``own_pid`` on it."""
    return (*_heat(looks), *_others(looks, own_pid))


def _heat(looks: Sequence[GpuConditions]) -> list[str]:
    hot = sum("heat" in look.throttled for look in looks)
    if not hot or hot < _LEAST_SHARE * len(looks):
        return []
    return [f"the GPU slowed itself down for heat in {hot} of {len(looks)} looks; better cooling makes it faster."]


def _others(looks: Sequence[GpuConditions], own_pid: int) -> list[str]:
    """In a container one's own process may have another number: then one of those that are there is it."""
    pids = {pid for look in looks for pid in look.pids}
    at_once = max((len(look.pids) for look in looks), default=0)
    if own_pid in pids:
        others = sorted(pids - {own_pid})
        return [_on_the_gpu(len(others), f" (pid {', '.join(map(str, others[:5]))})")] if others else []
    return [_on_the_gpu(at_once - 1, "")] if at_once > 1 else []


def _on_the_gpu(count: int, which: str) -> str:
    what = "process was" if count == 1 else "processes were"
    return f"{count} other {what} on the GPU{which}; without them it may be faster."
