"""When nothing fits: which memory is short, in which component's stage, and by how much at the very least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from roost.planner.search.solver import Column, Limits, possible
from roost.units import MiB, format_bytes

_POOL_STEPS = 16

ShortMemory = Literal["VRAM", "host memory", "pinned memory", "shared memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """The memory that no candidate plan stays within. ``component`` is whose use binds; None for host memory.

    ``also`` is what is short too, once there is enough of this one.
    """

    memory: ShortMemory
    component: str | None
    needed_bytes: int
    limit_bytes: int
    also: Shortfall | None = None

    @property
    def short_bytes(self) -> int:
        return self.needed_bytes - self.limit_bytes

    def headline(self) -> str:
        """What is short and by how much, as people read it."""
        where = f" while {self.component} is in use" if self.component else ""
        alone = f"{self.memory} is {format_bytes(self.short_bytes)} short{where}"
        return f"{alone}, and {self.also.headline()}" if self.also else alone

    def sentence(self) -> str:
        """The same with both figures."""
        alone = (
            f"{replace(self, also=None).headline()}: the least possible is {format_bytes(self.needed_bytes)}, and"
            f" {format_bytes(max(0, self.limit_bytes))} may be used."
        )
        return f"{alone} With enough of it {self.also.sentence()}" if self.also else alone


def shortfall(options: Mapping[str, Column], limits: Limits) -> Shortfall:
    """What binds: VRAM with everything as small as it goes, and then host memory too, or host memory alone."""
    component, needed_bytes = least_vram(options)
    if needed_bytes <= limits.vram_bytes:
        return _host_shortfall(options, limits)
    enough = replace(limits, vram_bytes=needed_bytes)
    return Shortfall(
        memory="VRAM",
        component=component,
        needed_bytes=needed_bytes,
        limit_bytes=limits.vram_bytes,
        also=None if possible(options, enough) else _host_shortfall(options, enough),
    )


def _host_shortfall(options: Mapping[str, Column], limits: Limits) -> Shortfall:
    """How much host memory is lacking, or, where no amount of it helps, how much that may be pinned."""
    most_bytes = sum(max(each.host_bytes for each in column.options) for column in options.values())
    ample = replace(limits, host_bytes=max(most_bytes, limits.host_bytes))
    if possible(options, ample):
        needed_bytes, limit_bytes = _least_host(options, limits), limits.host_bytes
        return Shortfall(memory="host memory", component=None, needed_bytes=needed_bytes, limit_bytes=limit_bytes)
    least_bytes = sum(min(each.pinned_bytes for each in column.options) for column in options.values())
    return Shortfall(memory="pinned memory", component=None, needed_bytes=least_bytes, limit_bytes=limits.pinned_bytes)


def split_pool(limits: Limits, pool_bytes: int) -> Iterator[Limits]:
    """Both sides' limits that share one memory, from the most on the device to the least."""
    for step in range(_POOL_STEPS, 0, -1):
        vram_bytes = min(limits.vram_bytes, pool_bytes) * step // _POOL_STEPS
        host_bytes = min(limits.host_bytes, pool_bytes - vram_bytes)
        yield replace(
            limits,
            vram_bytes=vram_bytes,
            host_bytes=host_bytes,
            pinned_bytes=min(limits.pinned_bytes, host_bytes),
        )


def shared_shortfall(options: Mapping[str, Column], limits: Limits, pool_bytes: int) -> Shortfall:
    """By how much a memory that both sides share is too small, or what was typed of it for the device."""
    component, needed_bytes = least_vram(options)
    if limits.vram_bytes < min(needed_bytes, pool_bytes):
        return Shortfall(memory="VRAM", component=component, needed_bytes=needed_bytes, limit_bytes=limits.vram_bytes)
    if needed_bytes <= pool_bytes:
        splits = [each for each in split_pool(limits, pool_bytes) if each.vram_bytes >= needed_bytes]
        needs = [each.vram_bytes + _least_host(options, each) for each in splits]
        component, needed_bytes = "", min(needs, default=needed_bytes)
    return Shortfall(
        memory="shared memory", component=component or None, needed_bytes=needed_bytes, limit_bytes=pool_bytes
    )


def _least_host(options: Mapping[str, Column], limits: Limits) -> int:
    """The least host memory with which something fits the other limits, to a part in a thousand."""
    low = limits.host_bytes
    high = sum(max(each.host_bytes for each in column.options) for column in options.values())
    while high - low > max(MiB, high // 1000):
        middle = (low + high) // 2
        if possible(options, replace(limits, host_bytes=middle)):
            high = middle
        else:
            low = middle
    return high


def least_vram(options: Mapping[str, Column]) -> tuple[str, int]:
    """The stage that needs the most when every component takes its smallest option, with that need."""
    smallest = {
        name: min(column.options, key=lambda each: (each.idle_bytes, each.own_bytes))
        for name, column in options.items()
    }
    idle_bytes = sum(each.idle_bytes for each in smallest.values())
    worst = max(smallest, key=lambda name: smallest[name].own_bytes)
    return worst, idle_bytes + smallest[worst].own_bytes
