"""Copies from host memory that is not pinned, and from files, in the copy lane's order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Any

import torch

from roost.facts.machine import Lane
from roost.residency.device.interface import Device
from roost.residency.weights.host_masters import host_memory
from roost.residency.weights.unpinned_sources import HostBlock

BUFFER_BYTES = 32 * 1024**2


class LateEvent:
    """An event of the copy lane that the staging thread records when it gets there."""

    def __init__(self) -> None:
        self.event: Any = None
        self._error: BaseException | None = None
        self._recorded = threading.Event()

    def recorded(self, event: Any, error: BaseException | None) -> None:
        self.event, self._error = event, error
        self._recorded.set()

    def wait(self) -> Any:
        """Blocks until it is recorded; raises, every time, what made the copy before it fail."""
        self._recorded.wait()
        if self._error is not None:
            raise self._error
        return self.event


class LateMark:
    """A mark of the copy lane that the staging thread makes when it gets there."""

    def __init__(self) -> None:
        self.mark: Any = None

    def made(self, mark: Any) -> None:
        self.mark = mark


class Stager(Device):
    """A device whose copy lane also takes a ``HostBlock`` as source, through a few registered buffers.

    A thread reads the blocks. While it has work, whatever else is meant for the copy lane queues behind it, so order
    and events are those of the device; without it every call goes straight through. A wait of the compute lane or the
    host for a staged copy blocks the caller until that copy's last piece is enqueued. A read that fails is raised by
    every wait for the first event recorded after it. ``close`` ends the staging and leaves the device open.
    """

    def __init__(self, device: Device, buffers: int = 2, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.kind, self.device, self.budget_bytes = device.kind, device.device, device.budget_bytes
        self._device = device
        self._buffers = buffers
        self._buffer_bytes = buffer_bytes
        self._ring: list[_StagingBuffer] = []
        self._latest = -1  # in the ring
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Condition()
        self._pending = 0
        self._failure: BaseException | None = None  # of a copy whose event is not recorded yet
        self._thread: threading.Thread | None = None

    def copy(self, target: torch.Tensor, source: torch.Tensor | HostBlock, lane: Lane = "copy") -> None:
        if isinstance(source, torch.Tensor):
            if lane == "copy" and self._pending:
                self._defer(lambda: self._device.copy(target, source, lane))
            else:
                self._device.copy(target, source, lane)
            return
        if lane != "copy" or target.nbytes != source.size:
            raise ValueError(f"a staged copy of {source.size} bytes to {target.nbytes} on the {lane} lane")
        self._defer(lambda: self._stage(target, source))

    def record(self, lane: Lane) -> Any:
        if lane == "compute" or not (self._pending or self._failure):
            return self._device.record(lane)
        late = LateEvent()
        self._defer(lambda: self._record(late))
        return late

    def wait(self, lane: Lane, event: Any) -> None:
        if isinstance(event, LateEvent):
            # The copy lane has what it recorded itself behind it anyway.
            if lane == "compute":
                self._device.wait(lane, event.wait())
        elif lane == "copy" and self._pending:
            self._defer(lambda: self._device.wait(lane, event))
        else:
            self._device.wait(lane, event)

    def wait_host(self, event: Any) -> None:
        self._device.wait_host(event.wait() if isinstance(event, LateEvent) else event)

    def synchronize(self) -> None:
        self._drain()
        self._device.synchronize()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def close(self) -> None:
        if self._thread is None:
            return
        self._jobs.put(None)
        self._thread.join()
        self._thread = None
        for buffer in self._ring:
            if buffer.copied is not None:
                self._device.wait_host(buffer.copied)
            if buffer.pinned:
                self._device.unregister(buffer.memory)
        self._ring.clear()

    def allocate(self, count: int) -> torch.Tensor:
        return self._device.allocate(count)

    def free(self, buffer: torch.Tensor) -> None:
        self._device.free(buffer)

    def register(self, buffer: torch.Tensor) -> bool:
        return self._device.register(buffer)

    def unregister(self, buffer: torch.Tensor) -> None:
        self._drain()
        self._device.unregister(buffer)

    def trim(self) -> None:
        self._device.trim()

    def begin_use(self, buffer: torch.Tensor) -> None:
        self._device.begin_use(buffer)

    def end_use(self, buffer: torch.Tensor) -> None:
        self._device.end_use(buffer)

    def begin_host_write(self, buffer: torch.Tensor) -> None:
        self._device.begin_host_write(buffer)

    def mark(self, lane: Lane = "compute") -> Any:
        if lane == "compute" or not self._pending:
            return self._device.mark(lane)
        late = LateMark()
        self._defer(lambda: late.made(self._device.mark(lane)))
        return late

    def reached(self, mark: Any) -> bool:
        made = mark.mark if isinstance(mark, LateMark) else mark
        return made is not None and self._device.reached(made)

    def seconds_between(self, earlier: Any, later: Any) -> float:
        marks = (each.mark if isinstance(each, LateMark) else each for each in (earlier, later))
        return self._device.seconds_between(*marks)

    def take_high_bytes(self) -> int:
        return self._device.take_high_bytes()

    @property
    def reserved_bytes(self) -> int | None:
        return self._device.reserved_bytes

    def counting_activations(self) -> AbstractContextManager[object]:
        return self._device.counting_activations()

    def checking_reads(self, owner: str, weights: Iterable[tuple[str, torch.Tensor]]) -> AbstractContextManager[object]:
        return self._device.checking_reads(owner, weights)

    def engine_work(self) -> AbstractContextManager[object]:
        return self._device.engine_work()

    def forget_activations(self) -> None:
        self._device.forget_activations()

    @property
    def refusals(self) -> int:
        return self._device.refusals

    def notice(self, error: RuntimeError) -> None:
        self._device.notice(error)

    @property
    def used_bytes(self) -> int:
        return self._device.used_bytes

    @property
    def peak_bytes(self) -> int:
        return self._device.peak_bytes

    def reset_peak(self) -> None:
        self._device.reset_peak()

    @property
    def free_bytes(self) -> int:
        return self._device.free_bytes

    def _defer(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="roost-staging", daemon=True)
            self._thread.start()
        with self._idle:
            self._pending += 1
        self._jobs.put(job)

    def _drain(self) -> None:
        with self._idle:
            self._idle.wait_for(lambda: not self._pending)

    def _run(self) -> None:
        self._device.enter_thread()
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:  # must reach whoever waits for the copy, whatever it is
                self._failure = self._failure or error
            del job  # a finished job must not keep its tensors alive
            with self._idle:
                self._pending -= 1
                self._idle.notify_all()

    def _record(self, late: LateEvent) -> None:
        failure, self._failure = self._failure, None
        event = None
        try:
            event = self._device.record("copy")
        except BaseException as error:  # whoever waits for the event must wake up
            failure = failure or error
        late.recorded(event, failure)

    def _stage(self, target: torch.Tensor, source: HostBlock) -> None:
        for start in range(0, source.size, self._buffer_bytes):
            piece = target[start : start + self._buffer_bytes]
            buffer = self._free_buffer()
            staged = buffer.memory[: piece.nbytes]
            self._device.begin_host_write(staged)
            source.read_into(staged, start)
            self._device.copy(piece, staged, "copy")
            buffer.copied = self._device.record("copy")

    def _free_buffer(self) -> _StagingBuffer:
        """The buffer used longest ago, once its copy is done."""
        self._latest = (self._latest + 1) % self._buffers
        if len(self._ring) < self._buffers:
            self._ring.append(_StagingBuffer(self._device, self._buffer_bytes))
            return self._ring[-1]
        buffer = self._ring[self._latest]
        if buffer.copied is not None:
            self._device.wait_host(buffer.copied)
        return buffer


class _StagingBuffer:
    """Whole pages of host memory, registered with the device if it lets us, and the last copy out of them."""

    def __init__(self, device: Device, count: int) -> None:
        self.memory = host_memory(count)
        self.pinned = device.register(self.memory)
        self.copied: Any = None
