"""The emulated device: budget, lanes and events, throttle, poison, pinned books, and what it logs."""

import threading
from itertools import pairwise

import pytest
import torch

from roost.errors import UsageError
from roost.residency.device.choice import open_device
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.device.emulated.lane import WorkLane
from roost.residency.device.interface import Device, EmulatedOutOfMemory
from roost.residency.engine.rerun import MemoryShortage
from roost.residency.weights.host_masters import host_memory

MIB = 1024**2
# A lane that a test holds goes on by itself after this, so that a wait for the wrong thing fails instead of hanging.
HELD_S = 30


def host(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 255, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def upload(device: Device, source: torch.Tensor) -> torch.Tensor:
    """A buffer with ``source`` in it, ready for the compute lane."""
    buffer = device.allocate(source.nbytes)
    device.wait("copy", device.record("compute"))
    device.copy(buffer, source)
    device.wait("compute", device.record("copy"))
    return buffer


def test_allocations_are_aligned_and_counted_in_steps_of_256() -> None:
    with EmulatedDevice(10_000) as device:
        buffers = [device.allocate(count) for count in (1, 256, 257)]
        assert all(buffer.data_ptr() % 256 == 0 for buffer in buffers)
        assert [buffer.nbytes for buffer in buffers] == [1, 256, 257]
        assert (device.used_bytes, device.free_bytes) == (256 + 256 + 512, 10_000 - 1024)
        device.free(buffers[2])
        assert (device.used_bytes, device.peak_bytes) == (512, 1024)
        device.reset_peak()
        assert device.peak_bytes == 512


def test_the_budget_fits_to_the_byte_and_no_further() -> None:
    with EmulatedDevice(1024) as device:
        device.allocate(768)
        last = device.allocate(256)
        with pytest.raises(torch.OutOfMemoryError, match=r"emulated.*needs 256 B, has 0 B of 1.00 KiB"):
            device.allocate(1)
        device.free(last)
        assert device.allocate(256).nbytes == 256


def test_nothing_is_taken_by_an_empty_allocation() -> None:
    with EmulatedDevice(0) as device:
        device.free(device.allocate(0))
        assert device.peak_bytes == 0


def test_freeing_twice_is_an_error() -> None:
    with EmulatedDevice(1024, check=False) as device:
        buffer = device.allocate(8)
        device.free(buffer)
        with pytest.raises(RuntimeError, match="does not hold"):
            device.free(buffer)


def test_freed_memory_is_poisoned_and_handed_out_again() -> None:
    with EmulatedDevice(1024) as device:
        buffer = upload(device, host(512))
        address = buffer.data_ptr()
        device.free(buffer)
        assert torch.isnan(buffer.view(torch.bfloat16)).all()
        assert device.allocate(512).data_ptr() == address


def test_trimmed_memory_is_not_kept() -> None:
    with EmulatedDevice(10 * MIB) as device:
        device.free(device.allocate(MIB))
        device.trim()
        assert device._arena._idle_bytes == 0


def test_host_memory_behind_the_device_stays_within_its_budget() -> None:
    with EmulatedDevice(1000 * 256) as device:
        for count in range(1, 300):
            device.free(device.allocate(count * 256))
            assert device.used_bytes + device._arena._idle_bytes <= device.budget_bytes


def test_a_buffer_is_poisoned_when_its_next_copy_begins() -> None:
    with EmulatedDevice(MIB) as device:
        buffer = upload(device, torch.zeros(1024, dtype=torch.uint8))
        seen: list[torch.Tensor] = []
        device._lanes["copy"].pause = lambda: seen.append(buffer.clone())  # before the copy, and in its middle
        device.wait("copy", device.record("compute"))
        device.copy(buffer, torch.ones(1024, dtype=torch.uint8))
        device.synchronize()
        assert [int(each.min()) for each in (*seen, buffer)] == [0, 0xFF, 1]


def test_copies_run_in_order_behind_the_host_and_at_the_links_rate() -> None:
    count, rate = MIB // 8, 16 * MIB
    with EmulatedDevice(MIB, h2d_bytes_per_s=rate) as device:
        buffer, may_go = device.allocate(count), threading.Event()
        device.wait("copy", device.record("compute"))
        device._lanes["copy"].pause = lambda: may_go.wait(HELD_S)
        sources = [host(count, seed) for seed in range(3)]
        for source in sources:
            device.copy(buffer, source)
        assert device.activity.copies == []  # the host is through and the first copy has not ended
        may_go.set()
        device.wait_host(device.record("copy"))
        assert torch.equal(buffer, sources[-1])
        copies = device.activity.copies
        assert [each.enqueued_s for each in copies] == sorted(each.enqueued_s for each in copies)
        assert all(after.start_s >= before.end_s for before, after in pairwise(copies))
        # Queued copies follow each other on the link, however late the thread wakes up.
        assert copies[-1].end_s - copies[0].start_s >= 3 * count / rate


def test_a_wait_binds_to_what_was_enqueued_before_the_record() -> None:
    with EmulatedDevice(MIB, check=False) as device:
        first, second, may_go = device.allocate(1024), device.allocate(1024), threading.Event()
        device._lanes["copy"].pause = lambda: device.activity.copies and may_go.wait(HELD_S)
        device.copy(first, host(1024))
        event = device.record("copy")
        device.copy(second, host(1024))
        device.wait("compute", event)
        assert len(device.activity.copies) == 1
        assert torch.equal(first, host(1024))
        may_go.set()


def test_the_copy_lane_waits_for_the_compute_lane() -> None:
    with EmulatedDevice(MIB, asynchronous_compute=True) as device:
        may_go = threading.Event()
        buffer = upload(device, torch.zeros(256, dtype=torch.uint8))
        seen = torch.empty(256, dtype=torch.uint8)

        def kernel() -> None:
            may_go.wait()
            seen.copy_(buffer)

        device.launch(kernel, reads=[buffer])
        device.wait("copy", device.record("compute"))
        device.copy(buffer, torch.ones(256, dtype=torch.uint8))
        may_go.set()
        device.synchronize()
        assert (seen == 0).all()
        assert (buffer == 1).all()


def test_a_download_gives_back_the_bytes() -> None:
    with EmulatedDevice(MIB) as device:
        buffer = upload(device, host(1000))
        device.wait("copy", device.record("compute"))
        target = torch.zeros(1000, dtype=torch.uint8)
        device.copy(target, buffer)
        device.wait_host(device.record("copy"))
        assert torch.equal(target, host(1000))
        assert device.activity.copied_bytes("h2d") == device.activity.copied_bytes("d2h") == 1000
        assert device.activity.host_waits == 1


def test_a_copy_of_the_wrong_size_or_between_host_tensors_is_refused() -> None:
    with EmulatedDevice(MIB) as device:
        with pytest.raises(ValueError, match="8 bytes"):
            device.copy(device.allocate(16), host(8))
        with pytest.raises(ValueError, match="neither begins nor ends"):
            device.copy(host(8), host(8))


def test_an_error_on_a_lane_reaches_the_host_and_nobody_hangs() -> None:
    with EmulatedDevice(MIB, asynchronous_compute=True) as device:

        def kernel() -> None:
            raise ZeroDivisionError

        device.launch(kernel)
        with pytest.raises(ZeroDivisionError):
            device.synchronize()
        device.synchronize()


def test_pinning_needs_whole_pages_and_stops_at_its_budget() -> None:
    with EmulatedDevice(MIB, pinned_budget_bytes=12_000) as device:
        first, second = host_memory(8192), host_memory(4096)
        assert device.register(first)
        assert not device.register(second)
        assert device.pinned_bytes == 8192
        device.unregister(first)
        assert device.register(second)
        with pytest.raises(ValueError, match="page"):
            device.register(second[8:])
    assert device.pinned_bytes == 0


def test_unpinning_waits_for_the_copies_that_read_the_memory() -> None:
    with EmulatedDevice(MIB, h2d_bytes_per_s=MIB) as device:
        pages = host_memory(MIB // 4)
        device.register(pages)
        buffer = device.allocate(pages.nbytes)
        device.wait("copy", device.record("compute"))
        device.copy(buffer, pages)
        device.unregister(pages)
        assert len(device.activity.copies) == 1


def test_copies_from_ordinary_memory_are_counted() -> None:
    with EmulatedDevice(MIB) as device:
        pages = host_memory(4096)
        device.register(pages)
        upload(device, pages[:100])
        assert device.activity.unpinned_copies == 0
        upload(device, host(100))
        assert device.activity.unpinned_copies == 1


def test_overlap_and_stalls_are_what_the_lanes_did() -> None:
    with EmulatedDevice(MIB) as device:
        buffer, begun, stalled = device.allocate(1024), threading.Event(), threading.Event()
        lane = device._lanes["copy"]
        pauses: list[bool] = []

        def pause() -> None:
            pauses.append(True)
            if len(pauses) == 2:  # the first is before the copy, the second in its middle
                begun.set()
                stalled.wait(HELD_S)

        def wait_until(position: int) -> None:
            stalled.set()
            WorkLane.wait_until(lane, position)

        lane.pause, lane.wait_until = pause, wait_until
        device.wait("copy", device.record("compute"))
        device.copy(buffer, host(1024))
        begun.wait(HELD_S)
        device.wait("compute", device.record("copy"))
        activity = device.activity
        (copy,), ((stall_start_s, stall_end_s),) = activity.copies, activity.stalls
        assert copy.start_s < stall_start_s < copy.end_s < stall_end_s
        assert activity.copy_s == copy.end_s - copy.start_s
        assert activity.stall_s == stall_end_s - stall_start_s
        assert activity.overlap_s == pytest.approx(stall_start_s - copy.start_s)


def test_closing_ends_both_threads() -> None:
    before = threading.active_count()
    device = EmulatedDevice(MIB, asynchronous_compute=True)
    upload(device, host(8))
    device.launch(lambda: None)
    assert threading.active_count() == before + 2
    device.close()
    assert threading.active_count() == before


def test_a_buffer_made_in_inference_mode_can_be_filled_outside() -> None:
    with EmulatedDevice(MIB) as device:
        with torch.inference_mode():
            buffer = upload(device, host(512))
        device.wait("copy", device.record("compute"))
        device.copy(buffer, host(512, 1))
        device.synchronize()
        assert torch.equal(buffer, host(512, 1))


def test_open_device_gives_the_kind_asked_for() -> None:
    with open_device("emulated", 1024) as device:
        assert (device.kind, device.device.type, device.budget_bytes) == ("emulated", "cpu", 1024)
        with device.counting_activations(), pytest.raises(torch.OutOfMemoryError):
            torch.ones(1000)


@pytest.mark.skipif(torch.cuda.is_available(), reason="only without CUDA")
def test_cuda_without_a_gpu_names_the_way_on() -> None:
    with pytest.raises(UsageError, match="device='emulated'"):
        open_device("cuda", 1024)


class ReservingDevice(EmulatedDevice):
    @property
    def reserved_bytes(self) -> int:
        return 3 * MIB


def test_a_full_device_may_say_so_in_other_words() -> None:
    with ReservingDevice(8 * MIB) as device:
        shortage = MemoryShortage("decode", device)
        with pytest.raises(EmulatedOutOfMemory) as full:
            device.allocate(9 * MIB)
        shortage.note(EmulatedOutOfMemory("NO ROOM", full.value.needed_bytes))
        assert "it needs 9.00 MiB more than" in str(shortage.error())
        shortage.note(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0"))
        held = "the 0 B in use now (the allocator has held up to 3.00 MiB for it), within"
        assert f"it needs 20.00 MiB more than {held}" in str(shortage.error())
