"""The CUDA device: budget, pinned books, order between streams, and the engine on it while both streams run late."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from engine_toys import call, play, streaming
from roost.facts.machine import Lane
from roost.residency.device.cuda import CudaDevice
from roost.residency.weights.host_masters import host_memory
from toy_worlds import World

pytestmark = pytest.mark.gpu
MIB = 1024**2
LATE_CYCLES = 2_000_000  # about a millisecond


class LateCuda(CudaDevice):
    """Sleeps on both streams at random: weights come late, and kernels read late."""

    def __init__(self, budget_bytes: int, seed: int) -> None:
        super().__init__(budget_bytes)
        self._chance = random.Random(seed)

    def copy(self, target: torch.Tensor, source: torch.Tensor, lane: Lane = "copy") -> None:
        self._sleep(lane)
        super().copy(target, source, lane)

    def begin_use(self, buffer: torch.Tensor) -> None:
        self._sleep("compute")

    def _sleep(self, lane: Lane) -> None:
        if self._chance.random() < 0.3:
            with self._stream(lane):
                torch.cuda._sleep(self._chance.randrange(LATE_CYCLES))


@pytest.fixture
def device() -> Iterator[CudaDevice]:
    with CudaDevice(1024 * MIB) as device:
        yield device


def test_allocations_are_aligned_and_counted(device: CudaDevice) -> None:
    before = device.used_bytes
    buffers = [device.allocate(count) for count in (1, 512, 10_000)]
    assert all(buffer.data_ptr() % 256 == 0 for buffer in buffers)
    assert device.used_bytes >= before + 10_513
    for buffer in buffers:
        device.free(buffer)
    del buffer
    buffers.clear()
    assert device.used_bytes == before


def test_the_budget_binds_until_it_is_closed() -> None:
    with CudaDevice(64 * MIB) as device:
        assert device.free_bytes <= 64 * MIB
        with pytest.raises(torch.OutOfMemoryError):
            device.allocate(128 * MIB)
    with CudaDevice(1024 * MIB) as device:
        assert device.allocate(128 * MIB).nbytes == 128 * MIB


def test_exactly_the_registered_bytes_are_pinned(device: CudaDevice) -> None:
    pages = host_memory(3 * 4096)
    assert device.register(pages)
    assert pages.is_pinned()
    assert device.pinned_bytes == 3 * 4096
    device.unregister(pages)
    assert not pages.is_pinned()
    assert device.pinned_bytes == 0


def test_a_refused_registration_leaves_no_error_behind(device: CudaDevice) -> None:
    pages = host_memory(4096)
    assert device.register(pages)
    assert not device.register(pages)  # the same memory twice
    assert torch.ones(3, device=device.device).sum().item() == 3
    device.unregister(pages)


def test_a_copy_waits_for_the_kernel_that_reads_its_target(device: CudaDevice) -> None:
    old, new = host_memory(MIB), host_memory(MIB)
    device.register(old)
    device.register(new)
    new.fill_(1)
    buffer = device.allocate(MIB)
    device.wait("copy", device.record("compute"))
    device.copy(buffer, old)
    device.wait("compute", device.record("copy"))
    torch.cuda._sleep(50 * LATE_CYCLES)
    seen = buffer.clone()
    device.wait("copy", device.record("compute"))
    device.copy(buffer, new)
    device.synchronize()
    assert not seen.any()
    assert buffer.all()


def test_memory_freed_under_another_stream_is_not_reused_too_early(device: CudaDevice) -> None:
    buffer = device.allocate(MIB).zero_()
    address, seen = buffer.data_ptr(), torch.ones(MIB, dtype=torch.uint8, device=device.device)
    device.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(50 * LATE_CYCLES)
        seen.copy_(buffer)
        device.free(buffer)
    del buffer
    again = [device.allocate(MIB).fill_(1)]
    while again[-1].data_ptr() != address:  # which of its free blocks the allocator takes first is its own affair
        assert len(again) < 100
        again.append(device.allocate(MIB).fill_(1))
    device.synchronize()
    assert not seen.any()


@pytest.mark.parametrize("seed", range(40))
def test_worlds_are_exact_while_both_streams_run_late(seed: int) -> None:
    world = World(seed)
    expected = world.expected()
    with LateCuda(256 * MIB, seed) as device:
        assert torch.equal(play(world, device), expected)
        assert device.pinned_bytes == 0


def test_steady_state_neither_synchronises_nor_allocates(device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    component, use = streaming(device)
    state = torch.zeros(4, dtype=torch.int64, device=device.device)
    component.acquire()
    for _ in range(2):
        call(component, use, state, device)
    device.synchronize()
    allocations: list[Any] = []
    monkeypatch.setattr(device, "allocate", allocations.append)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            call(component, use, state, device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not allocations
    device.synchronize()
    component.restore()
    component._transfers.close()
