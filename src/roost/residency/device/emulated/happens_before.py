"""Which access happens before which: vector clocks over the host, the compute lane and the copy lane.

Every access is checked where it is enqueued, so a missing wait is found however the lanes happen to run. A clock holds,
per actor, how many of its accesses are known to be over: what an actor did itself, what the host knew when it enqueued,
and what came with the events waited for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch

Actor = Literal["host", "compute", "copy"]
Clock = tuple[int, int, int]
_INDEX: dict[Actor, int] = {"host": 0, "compute": 1, "copy": 2}


class HappensBeforeError(RuntimeError):
    """Two accesses to one buffer that no event orders."""


@dataclass(frozen=True, slots=True)
class _Access:
    actor: Actor
    tick: int
    what: str


@dataclass(slots=True)
class _Region:
    """Bytes of one buffer with the same history."""

    start: int
    end: int
    write: _Access | None = None
    reads: dict[Actor, _Access] = field(default_factory=dict)
    uses: int = 0  # begun and not ended


@dataclass(slots=True)
class _Memory:
    name: str
    regions: list[_Region] = field(default_factory=list)


class HappensBefore:
    """Accesses to watched buffers in the order of the host's calls. Raises HappensBeforeError on the first race."""

    def __init__(self) -> None:
        self._clocks: dict[Actor, Clock] = {"host": (0, 0, 0), "compute": (0, 0, 0), "copy": (0, 0, 0)}
        self._memories: dict[int, _Memory] = {}  # by address of the storage
        self._names = 0

    def watch(self, buffer: torch.Tensor, what: str, *, new: bool = False) -> None:
        """Follows a buffer from now on; ``new`` memory belongs to the compute lane's past, whose order it came in."""
        self._names += 1
        memory = _Memory(f"{what} {self._names} ({buffer.nbytes} bytes)")
        if new:
            start, end = _span(buffer)
            memory.regions.append(_Region(start, end, write=self._access("compute", "allocation")))
        self._memories[buffer.untyped_storage().data_ptr()] = memory

    def forget(self, buffer: torch.Tensor) -> None:
        self._memories.pop(buffer.untyped_storage().data_ptr(), None)

    def position(self, actor: Actor) -> Clock:
        """What an event recorded now by ``actor`` stands for."""
        self._clocks[actor] = _join(self._clocks[actor], self._clocks["host"])
        return self._clocks[actor]

    def learn(self, actor: Actor, clock: Clock) -> None:
        """``actor`` waits for an event with that clock."""
        self._clocks[actor] = _join(self._clocks[actor], clock)

    def work(self, actor: Actor, what: str, reads: Iterable[torch.Tensor], writes: Iterable[torch.Tensor]) -> None:
        """One piece of work enqueued on a lane (or done by the host)."""
        access = self._access(actor, what)
        for buffer in reads:
            self._read(buffer, access)
        for buffer in writes:
            self._write(buffer, access)

    def begin_use(self, buffer: torch.Tensor) -> None:
        region = self._read(buffer, self._access("compute", "use"))
        if region is not None:
            region.uses += 1

    def end_use(self, buffer: torch.Tensor) -> None:
        region = self._read(buffer, self._access("compute", "use"))
        if region is None:
            return
        if region.uses == 0:
            raise HappensBeforeError(f"{self._memory(buffer).name}: a use ends that was never begun")  # type: ignore[union-attr]
        region.uses -= 1

    def _access(self, actor: Actor, what: str) -> _Access:
        index = _INDEX[actor]
        clock = list(self.position(actor))
        clock[index] += 1
        self._clocks[actor] = (clock[0], clock[1], clock[2])
        return _Access(actor, clock[index], what)

    def _memory(self, buffer: torch.Tensor) -> _Memory | None:
        return self._memories.get(buffer.untyped_storage().data_ptr())

    def _read(self, buffer: torch.Tensor, access: _Access) -> _Region | None:
        memory = self._memory(buffer)
        if memory is None or buffer.numel() == 0:
            return None
        start, end = _span(buffer)
        own = None
        for region in memory.regions:
            if region.start < end and start < region.end:
                self._demand(memory, region.write, access, "read")
            if (region.start, region.end) == (start, end):
                own = region
        if own is None:
            own = _Region(start, end)
            memory.regions.append(own)
        own.reads[access.actor] = access
        return own

    def _write(self, buffer: torch.Tensor, access: _Access) -> None:
        memory = self._memory(buffer)
        if memory is None or buffer.numel() == 0:
            return
        start, end = _span(buffer)
        for region in memory.regions:
            if region.start < end and start < region.end:
                if region.uses:
                    raise HappensBeforeError(f"{memory.name}: {access.actor} writes it ({access.what}) while in use")
                self._demand(memory, region.write, access, "write")
                for read in region.reads.values():
                    self._demand(memory, read, access, "write")
        # What this write covers has no history left to check against.
        memory.regions = [region for region in memory.regions if region.start < start or end < region.end]
        memory.regions.append(_Region(start, end, write=access))

    def _demand(self, memory: _Memory, earlier: _Access | None, later: _Access, how: str) -> None:
        if earlier is None or self._clocks[later.actor][_INDEX[earlier.actor]] >= earlier.tick:
            return
        raise HappensBeforeError(
            f"{memory.name}: {how} by {later.actor} ({later.what}) is not ordered after {earlier.actor}'s "
            f"{earlier.what}; missing: {later.actor} waits for an event recorded on {earlier.actor} after it"
        )


def _span(buffer: torch.Tensor) -> tuple[int, int]:
    start = int(buffer.storage_offset()) * buffer.element_size()
    return start, start + buffer.nbytes


def _join(one: Clock, other: Clock) -> Clock:
    return (max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2]))
