"""The virtual clock against schedules that are worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from simulated import now_s, priced

MS = 1e-3
BLOCK = 125_000_000  # bytes: 5 ms at 25 GB/s, 13.9 ms at 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A stream for copies, a source on either kind of host memory, and targets."""

    copies: torch.cuda.Stream
    pinned: torch.Tensor
    pageable: torch.Tensor
    targets: list[torch.Tensor]
    scratch: torch.Tensor
    back: torch.Tensor

    def kernel(self, seconds: float) -> None:
        priced(seconds, self.scratch.zero_)

    def upload(self, target: int = 0) -> None:
        self.targets[target].copy_(self.pinned, non_blocking=True)

    def streamed(self, blocks: int, seconds: float, slots: int) -> None:
        """Each block is copied into the slot that was read ``slots`` blocks before, then computed."""
        ready: list[torch.cuda.Event] = []
        free: list[torch.cuda.Event] = []
        for index in range(blocks + slots - 1):
            if index < blocks:
                if index >= slots:
                    self.copies.wait_event(free[index - slots])
                with torch.cuda.stream(self.copies):
                    self.upload(index % slots)
                ready.append(self.copies.record_event())
            if index >= slots - 1:
                torch.cuda.current_stream().wait_event(ready[index - slots + 1])
                self.kernel(seconds)
                free.append(torch.cuda.current_stream().record_event())


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(
        copies=torch.cuda.Stream(),
        pinned=torch.empty(BLOCK, dtype=torch.uint8, pin_memory=True),
        back=torch.empty(BLOCK, dtype=torch.uint8, pin_memory=True),
        pageable=torch.empty(BLOCK, dtype=torch.uint8),
        targets=[torch.empty(BLOCK, dtype=torch.uint8, device="cuda") for _ in range(3)],
        scratch=torch.empty(3, 1000, device="cuda").t(),  # not contiguous: zeroed by a kernel, not a memset
    )


def both_ways(bench: Bench) -> None:
    """Copies to the device and from it share no engine."""
    bench.upload(0)
    with torch.cuda.stream(bench.copies):
        bench.back.copy_(bench.targets[1], non_blocking=True)


def two_streams(bench: Bench) -> None:
    """Kernels of two streams share the compute engine."""
    bench.kernel(10 * MS)
    with torch.cuda.stream(bench.copies):
        bench.kernel(10 * MS)


def waits_on_the_host(bench: Bench) -> None:
    bench.kernel(10 * MS)
    bench.scratch[0, 0].item()
    bench.kernel(10 * MS)


SCHEDULES: list[tuple[str, Callable[[Bench], object], float]] = [
    ("10 kernels of 10 ms", lambda bench: [bench.kernel(10 * MS) for _ in range(10)], 100 * MS),
    ("10 copies of 5 ms", lambda bench: [bench.upload() for _ in range(10)], 50 * MS),
    ("10 x (copy 5, kernel 10), two slots: a copy, then compute", lambda b: b.streamed(10, 10 * MS, 2), 105 * MS),
    ("10 x (copy 5, kernel 2), two slots: copies, then the last kernel", lambda b: b.streamed(10, 2 * MS, 2), 52 * MS),
    ("10 x (copy 5, kernel 10), one slot: nothing overlaps", lambda b: b.streamed(10, 10 * MS, 1), 150 * MS),
    ("a pageable copy blocks the host at its own rate", lambda b: b.targets[0].copy_(b.pageable), BLOCK / 9e9),
    ("two directions at a time", both_ways, 5 * MS),
    ("two streams, one engine", two_streams, 20 * MS),
    (".item() waits for what is before it", waits_on_the_host, 20 * MS),
]  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "expected_s"), [each[1:] for each in SCHEDULES], ids=[each[0] for each in SCHEDULES]
)
def test_a_schedule_takes_what_it_does_by_hand(
    bench: Bench, schedule: Callable[[Bench], object], expected_s: float, found: list[str]
) -> None:
    found.append("copy")  # these schedules reuse targets without waiting for one another
    torch.cuda.synchronize()
    started_s = now_s()
    schedule(bench)
    torch.cuda.synchronize()
    assert now_s() - started_s == pytest.approx(expected_s, rel=0.02, abs=0.3 * MS)


def test_the_host_runs_ahead_until_the_queue_is_full(bench: Bench) -> None:
    torch.cuda.synchronize()
    started_s = now_s()
    for _ in range(1000):
        bench.kernel(1 * MS)
    assert now_s() - started_s < 20 * MS  # 4 microseconds of each launch
    for _ in range(100):
        bench.kernel(1 * MS)
    assert now_s() - started_s == pytest.approx(76 * MS, rel=0.05)  # 1,100 launches less the 1,024 that are queued
    torch.cuda.synchronize()
    assert now_s() - started_s == pytest.approx(1100 * MS, rel=0.01)


def test_events_measure_the_lane_they_are_recorded_on(bench: Bench) -> None:
    before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    before.record()
    bench.kernel(7 * MS)
    after.record()
    torch.cuda.synchronize()
    assert before.elapsed_time(after) == pytest.approx(7, rel=0.01)
