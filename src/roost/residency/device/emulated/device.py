"""The emulated accelerator as a ``Device``: a CPU that computes late, copies late and forgives nothing."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch

from roost.facts.machine import DeviceKind, Lane
from roost.residency.device.emulated.activations import ActivationCount
from roost.residency.device.emulated.activity import Activity, Direction
from roost.residency.device.emulated.arena import Arena
from roost.residency.device.emulated.happens_before import Clock, HappensBefore
from roost.residency.device.emulated.lane import LaneMark, WorkLane
from roost.residency.device.emulated.link import Link, fill_with_poison
from roost.residency.device.interface import Device

PAGE_BYTES = 4096
_NOTHING: AbstractContextManager[object] = nullcontext()


class EmulatedEvent(NamedTuple):
    """The end of a lane at one moment, and what is known to be over there."""

    lane: Lane
    position: int
    clock: Clock | None


class EmulatedDevice(Device):
    """Host memory with a byte budget, a copy thread, and a check of every access's order.

    The compute lane is the calling thread: a wait blocks it until the event is reached. With ``asynchronous_compute``
    it is a thread, for toys whose kernels come through ``launch``. Rates in bytes per second throttle copies;
    ``delays`` seeds adversarial pauses on both lanes; ``poison`` fills memory with 0xFF the moment it may be used
    again; ``check`` raises HappensBeforeError where an event is missing; ``count_activations`` makes
    ``counting_activations`` watch every operation, which costs a few microseconds for each; what they allocate counts
    ``activation_factor`` times, for worlds in which more is taken than a trace tells.
    """

    kind: DeviceKind = "emulated"

    def __init__(  # noqa: PLR0913, each one switches one danger of a real device
        self,
        budget_bytes: int,
        *,
        h2d_bytes_per_s: float | None = None,
        d2h_bytes_per_s: float | None = None,
        delays: int | None = None,
        poison: bool = True,
        check: bool = True,
        count_activations: bool = False,
        activation_factor: float = 1.0,
        asynchronous_compute: bool = False,
        pinned_budget_bytes: int | None = None,
    ) -> None:
        self.device = torch.device("cpu")
        self.budget_bytes = budget_bytes
        self.activity = Activity()
        self.pinned_bytes = 0
        self._pinned_budget_bytes = pinned_budget_bytes
        rates: dict[Direction, float | None] = {"h2d": h2d_bytes_per_s, "d2h": d2h_bytes_per_s, "d2d": None}
        self._link = Link(rates, poison=poison, activity=self.activity)
        self._poison = poison
        self._arena = Arena(budget_bytes)
        self._order = HappensBefore() if check else None
        self._pinned: dict[int, torch.Tensor] = {}
        self._host = threading.RLock()  # the engine's thread and the staging thread both enqueue
        self._lanes: dict[Lane, WorkLane] = {
            "compute": WorkLane("compute", threaded=asynchronous_compute, delays=_seeded(delays, 1)),
            "copy": WorkLane("copy", threaded=True, delays=_seeded(delays, 2)),
        }
        self._asynchronous = asynchronous_compute
        self._activations = ActivationCount(self._arena, self._host, activation_factor) if count_activations else None

    def allocate(self, count: int) -> torch.Tensor:
        with self._host:
            buffer = self._arena.take(count)
            self.activity.allocations += 1
            if self._order and count:
                self._order.watch(buffer, "buffer", new=True)
            return buffer

    def free(self, buffer: torch.Tensor) -> None:
        if buffer.numel() == 0:
            return
        with self._host:
            if self._order:
                self._order.work("compute", "free", (), (buffer,))
            memory = self._arena.give_back(buffer)
            if self._poison:
                self._lanes["compute"].enqueue(lambda: fill_with_poison(memory))

    def copy(self, target: torch.Tensor, source: torch.Tensor, lane: Lane = "copy") -> None:
        if target.nbytes != source.nbytes or target.dtype != source.dtype:
            raise ValueError(f"a copy of {source.nbytes} bytes ({source.dtype}) to {target.nbytes} ({target.dtype})")
        with self._host:
            direction = self._direction(target, source)
            self.activity.enqueued_copies[direction] += 1
            self.activity.enqueued_bytes[direction] += target.nbytes
            host = {"h2d": source, "d2h": target}.get(direction)
            self.activity.unpinned_copies += host is not None and not self._is_pinned(host)
            if self._order:
                self._order.work(lane, f"copy {direction}", (source,), (target,))
            self._link.copying(target, source, self._lanes[lane], direction)

    def record(self, lane: Lane) -> EmulatedEvent:
        with self._host:
            clock = self._order.position(lane) if self._order else None
            return EmulatedEvent(lane, self._lanes[lane].end, clock)

    def wait(self, lane: Lane, event: EmulatedEvent) -> None:
        with self._host:
            if self._order and event.clock is not None:
                self._order.learn(lane, event.clock)
            if lane == event.lane or self._lanes[event.lane].reached(event.position):
                return
            if lane == "copy" or self._asynchronous:
                self._lanes[lane].enqueue(lambda: self._stall(lane, event))
                return
        # This blocks the host, so outside the lock: the staging thread must go on enqueuing.
        self._stall(lane, event)

    def wait_host(self, event: EmulatedEvent) -> None:
        with self._host:
            self.activity.host_waits += 1
        self._lanes[event.lane].wait_until(event.position)
        with self._host:
            if self._order and event.clock is not None:
                self._order.learn("host", event.clock)

    def synchronize(self) -> None:
        for event in (self.record("compute"), self.record("copy")):
            self.wait_host(event)

    def register(self, buffer: torch.Tensor) -> bool:
        if buffer.data_ptr() % PAGE_BYTES:
            raise ValueError("a host buffer to pin must start on a page")
        with self._host:
            limit = self._pinned_budget_bytes
            if limit is not None and self.pinned_bytes + buffer.nbytes > limit:
                return False
            self._pinned[buffer.untyped_storage().data_ptr()] = buffer
            self.pinned_bytes += buffer.nbytes
            if self._order:
                self._order.watch(buffer, "pinned host buffer")
            return True

    def unregister(self, buffer: torch.Tensor) -> None:
        self.synchronize()
        with self._host:
            if self._order:
                self._order.forget(buffer)
            del self._pinned[buffer.untyped_storage().data_ptr()]
            self.pinned_bytes -= buffer.nbytes

    def trim(self) -> None:
        with self._host:
            self._arena.trim()

    def begin_use(self, buffer: torch.Tensor) -> None:
        self._late()
        if self._order:
            with self._host:
                self._order.begin_use(buffer)

    def end_use(self, buffer: torch.Tensor) -> None:
        self._late()
        if self._order:
            with self._host:
                self._order.end_use(buffer)

    def begin_host_write(self, buffer: torch.Tensor) -> None:
        with self._host:
            if self._order:
                self._order.work("host", "write", (), (buffer,))
        if self._poison:
            fill_with_poison(buffer)

    def launch(
        self, kernel: Callable[[], None], reads: Sequence[torch.Tensor] = (), writes: Sequence[torch.Tensor] = ()
    ) -> None:
        """Enqueues a toy's kernel on the compute lane; says which device buffers it reads and writes."""
        with self._host:
            if self._order:
                self._order.work("compute", "kernel", reads, writes)
        self._lanes["compute"].enqueue(kernel)

    def counting_activations(self) -> AbstractContextManager[object]:
        """Counts what operations allocate inside the context, on this thread, towards the budget while it lives."""
        return nullcontext() if self._activations is None else self._activations.on()

    def checking_reads(self, owner: str, weights: Iterable[tuple[str, torch.Tensor]]) -> AbstractContextManager[object]:
        return _NOTHING if self._activations is None else self._activations.checking_reads(owner, weights)

    def mark(self, lane: Lane = "compute") -> LaneMark:
        mark = LaneMark()
        if lane == "compute":
            mark.reach()  # the compute lane is the calling thread
        else:
            with self._host:
                self._lanes[lane].enqueue(mark.reach)
        return mark

    def reached(self, mark: LaneMark) -> bool:
        return not math.isnan(mark.reached_s)

    def seconds_between(self, earlier: LaneMark, later: LaneMark) -> float:
        return later.reached_s - earlier.reached_s

    def take_high_bytes(self) -> int:
        with self._host:
            return self._arena.take_high_bytes()

    def watch_stalls(self) -> None:
        self.activity.stalls.clear()

    def engine_work(self) -> AbstractContextManager[object]:
        return _NOTHING if self._activations is None else self._activations.off()

    def forget_activations(self) -> None:
        if self._activations is not None:
            self._activations.forget()

    @property
    def stall_s(self) -> float:
        return self.activity.stall_s

    @property
    def used_bytes(self) -> int:
        return self._arena.used_bytes

    @property
    def peak_bytes(self) -> int:
        return self._arena.peak_bytes

    def reset_peak(self) -> None:
        with self._host:
            self._arena.peak_bytes = self._arena.used_bytes

    @property
    def free_bytes(self) -> int:
        return self.budget_bytes - self._arena.used_bytes

    def close(self) -> None:
        for buffer in list(self._pinned.values()):
            self.unregister(buffer)
        for lane in self._lanes.values():
            lane.close()
        self.trim()

    def _direction(self, target: torch.Tensor, source: torch.Tensor) -> Direction:
        if target in self._arena:
            return "d2d" if source in self._arena else "h2d"
        if source in self._arena:
            return "d2h"
        raise ValueError("a copy that neither begins nor ends in this device's memory")

    def _is_pinned(self, host: torch.Tensor) -> bool:
        return host.untyped_storage().data_ptr() in self._pinned

    def _stall(self, lane: Lane, event: EmulatedEvent) -> None:
        start_s = time.perf_counter()
        self._lanes[event.lane].wait_until(event.position)
        if lane == "compute":
            self.activity.stalls.append((start_s, time.perf_counter()))

    def _late(self) -> None:
        if not self._asynchronous:
            self._lanes["compute"].pause()


def _seeded(seed: int | None, lane: int) -> random.Random | None:
    return None if seed is None else random.Random(2 * seed + lane)
