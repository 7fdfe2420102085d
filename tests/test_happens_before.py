"""The checker raises where an event is missing, on the first call that makes the race, and nowhere else."""

import pytest
import torch

from roost.residency.device.emulated import EmulatedDevice, HappensBeforeError
from roost.residency.weights.host_masters import host_memory

SOURCE = torch.ones(512, dtype=torch.uint8)


@pytest.fixture
def device():
    with EmulatedDevice(1024**2) as device:
        yield device


def filled(device: EmulatedDevice) -> torch.Tensor:
    buffer = device.allocate(512)
    device.wait("copy", device.record("compute"))
    device.copy(buffer, SOURCE)
    return buffer


def test_a_copy_into_new_memory_needs_the_acquire_fence(device: EmulatedDevice) -> None:
    buffer = device.allocate(512)
    with pytest.raises(HappensBeforeError, match=r"write by copy.*compute's allocation; missing: copy waits"):
        device.copy(buffer, SOURCE)


def test_a_fence_recorded_before_the_allocation_does_not_cover_it(device: EmulatedDevice) -> None:
    early = device.record("compute")
    buffer = device.allocate(512)
    device.wait("copy", early)
    with pytest.raises(HappensBeforeError, match="allocation"):
        device.copy(buffer, SOURCE)


def test_a_use_needs_the_wait_for_its_copy(device: EmulatedDevice) -> None:
    buffer = filled(device)
    with pytest.raises(HappensBeforeError, match=r"buffer 1 .*read by compute \(use\).*missing: compute waits"):
        device.begin_use(buffer)


def test_a_refill_needs_the_wait_for_the_last_use(device: EmulatedDevice) -> None:
    buffer = filled(device)
    device.wait("compute", device.record("copy"))
    device.begin_use(buffer)
    early = device.record("compute")
    device.end_use(buffer)
    device.wait("copy", early)
    with pytest.raises(HappensBeforeError, match=r"write by copy.*compute's use"):
        device.copy(buffer, SOURCE)
    device.wait("copy", device.record("compute"))
    device.copy(buffer, SOURCE)


def test_a_write_during_a_use_is_wrong_whatever_was_waited_for(device: EmulatedDevice) -> None:
    buffer = filled(device)
    device.wait("compute", device.record("copy"))
    device.begin_use(buffer)
    device.wait("copy", device.record("compute"))
    with pytest.raises(HappensBeforeError, match="while in use"):
        device.copy(buffer, SOURCE)


def test_a_use_that_never_began_cannot_end(device: EmulatedDevice) -> None:
    buffer = filled(device)
    device.wait("compute", device.record("copy"))
    device.begin_use(buffer)
    device.end_use(buffer)
    with pytest.raises(HappensBeforeError, match="never begun"):
        device.end_use(buffer)


def test_freeing_needs_the_wait_for_a_late_copy(device: EmulatedDevice) -> None:
    buffer = filled(device)
    with pytest.raises(HappensBeforeError, match=r"write by compute \(free\).*missing: compute waits"):
        device.free(buffer)
    device.wait("compute", device.record("copy"))
    device.free(buffer)


def test_memory_that_comes_again_starts_a_new_history(device: EmulatedDevice) -> None:
    buffer = filled(device)
    device.wait("compute", device.record("copy"))
    device.free(buffer)
    again = device.allocate(512)
    assert again.data_ptr() == buffer.data_ptr()
    with pytest.raises(HappensBeforeError, match=r"buffer 2 .*allocation"):
        device.copy(again, SOURCE)


def test_a_download_needs_the_wait_for_the_kernels_before(device: EmulatedDevice) -> None:
    buffer = filled(device)
    device.wait("compute", device.record("copy"))
    device.launch(lambda: None, writes=[buffer])
    with pytest.raises(HappensBeforeError, match=r"read by copy \(copy d2h\).*compute's kernel"):
        device.copy(SOURCE.clone(), buffer)


def test_the_host_may_refill_a_staging_buffer_only_after_its_copy(device: EmulatedDevice) -> None:
    staging, buffer = host_memory(512), device.allocate(512)
    device.register(staging)
    device.wait("copy", device.record("compute"))
    device.begin_host_write(staging)
    device.copy(buffer, staging[:512])
    with pytest.raises(HappensBeforeError, match="write by host"):
        device.begin_host_write(staging)
    device.wait_host(device.record("copy"))
    device.begin_host_write(staging)
    assert (staging == 0xFF).all()


def test_what_the_host_waited_for_is_known_to_what_it_enqueues_later(device: EmulatedDevice) -> None:
    buffer = filled(device)
    device.wait_host(device.record("copy"))
    device.begin_use(buffer)
    device.end_use(buffer)
    device.synchronize()
    device.copy(buffer, SOURCE)


def test_halves_of_a_buffer_have_histories_of_their_own(device: EmulatedDevice) -> None:
    buffer = device.allocate(512)
    device.wait("copy", device.record("compute"))
    device.copy(buffer[:256], SOURCE[:256])
    device.wait("compute", device.record("copy"))
    device.begin_use(buffer[:256])
    device.copy(buffer[256:], SOURCE[256:])
    with pytest.raises(HappensBeforeError, match="read by compute"):
        device.begin_use(buffer[200:300])


def test_an_unchecked_device_lets_races_pass() -> None:
    with EmulatedDevice(1024**2, check=False) as device:
        buffer = device.allocate(512)
        device.copy(buffer, SOURCE)
        device.begin_use(buffer)
