"""What workers take of each host's memory: a process each, and masters, which those of one host share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roost.facts.machine import PROCESS_BYTES
from roost.plan.figures import BytesInterval
from roost.planner.fleet.service import Planned, Worker
from roost.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNeed:
    """One host's workers. Masters are counted once, whoever reads them; of the interval, the upper end."""

    name: str
    bytes: BytesInterval
    master_bytes: int
    available_bytes: int  # for masters


def host_memory(workers: Sequence[Worker]) -> tuple[HostNeed, ...]:
    """What the workers take of every host that they are on."""
    by_host: dict[str, list[Planned]] = {}
    for each in workers:
        by_host.setdefault(each.seat.host, []).append(each.planned)
    return tuple(_need(name, there) for name, there in by_host.items())


def _need(name: str, workers: Sequence[Planned]) -> HostNeed:
    """Workers of different plans keep different blocks of a component.

    The masters of both are between the larger one's and the sum, and never more than the component's.
    """
    sizes: dict[str, set[int]] = {}
    whole: dict[str, int] = {}
    for each in workers:
        for component, size in each.masters.items():
            sizes.setdefault(component, set()).add(size)
            whole[component] = max(size, whole.get(component, 0), each.plan.components[component].load_bytes)
    process_bytes = sum(PROCESS_BYTES[each.gpu.device_kind] for each in workers)
    low_bytes = sum(map(max, sizes.values()))
    high_bytes = sum(min(sum(found), whole[component]) for component, found in sizes.items())
    total_bytes = process_bytes + high_bytes
    return HostNeed(
        name=name,
        bytes=BytesInterval(low=process_bytes + low_bytes, mid=total_bytes, high=total_bytes),
        master_bytes=high_bytes,
        available_bytes=max(each.plan.machine.host.available_bytes for each in workers),
    )


def short_host(workers: Sequence[Worker]) -> str | None:
    """Which host has not enough memory for all of its workers, in words."""
    for each in host_memory(workers):
        if each.master_bytes > each.available_bytes:
            there = f"{format_bytes(each.available_bytes)} that its system and {len(workers)} processes leave"
            return f"masters on {each.name} would take {format_bytes(each.master_bytes)}, more than the {there}"
    return None
