"""Staged copies: right bytes in the copy lane's order, files that fail with one line, and nothing left after close."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from roost.errors import RoostError
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.weights.staging import Stager
from roost.residency.weights.transfers import Transfers
from roost.residency.weights.unpinned_sources import FileBlock, FilePiece, PageableBlock

SIZE = 10_000


def host(seed: int = 0, count: int = SIZE) -> torch.Tensor:
    return torch.randint(0, 255, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


class SlowBlock(PageableBlock):
    def read_into(self, buffer: torch.Tensor, offset: int) -> None:
        time.sleep(0.03)
        super().read_into(buffer, offset)


class HeldBlock(PageableBlock):
    """Read once ``may_go`` is set; after 30 s anyhow, so that a test of a copy that blocks its caller fails."""

    may_go = threading.Event()

    def read_into(self, buffer: torch.Tensor, offset: int) -> None:
        self.may_go.wait(30)
        super().read_into(buffer, offset)


@pytest.fixture
def device() -> Iterator[EmulatedDevice]:
    with EmulatedDevice(1024**2, delays=1) as device:
        yield device


@pytest.fixture
def stager(device: EmulatedDevice) -> Iterator[Stager]:
    stager = Stager(device, buffers=2, buffer_bytes=1024)
    yield stager
    stager.close()


def target_in(stager: Stager, count: int = SIZE) -> torch.Tensor:
    buffer = stager.allocate(count)
    stager.wait("copy", stager.record("compute"))
    return buffer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(bytes(host().numpy()))
    return path


def whole(path: Path) -> FileBlock:
    return FileBlock([FilePiece(path=path, file_offset=0, offset=0, size=SIZE)], SIZE)


def test_an_event_is_reached_only_after_the_last_piece(stager: Stager, device: EmulatedDevice) -> None:
    buffer = target_in(stager)
    block = HeldBlock(host())
    stager.copy(buffer, block)
    ready = stager.record("copy")
    assert device.activity.copies == []  # the host is through, and nothing has been read
    block.may_go.set()
    stager.wait("compute", ready)
    assert [each.copied_bytes for each in device.activity.copies] == [1024] * 9 + [SIZE - 9 * 1024]
    assert torch.equal(buffer, host())


def test_copies_keep_their_order_whatever_they_come_from(stager: Stager) -> None:
    buffer = target_in(stager)
    for seed in range(6):
        stager.copy(buffer, SlowBlock(host(seed)) if seed % 2 == 0 else host(seed))
    stager.wait_host(stager.record("copy"))
    assert torch.equal(buffer, host(5))


def test_a_wait_of_the_copy_lane_holds_back_the_staged_copy_after_it(stager: Stager) -> None:
    buffer = target_in(stager)
    stager.copy(buffer, SlowBlock(host(1)))
    stager.wait("compute", stager.record("copy"))
    stager.begin_use(buffer)
    stager.end_use(buffer)
    stager.wait("copy", stager.record("compute"))
    stager.copy(buffer, SlowBlock(host(2)))
    stager.wait("compute", stager.record("copy"))
    assert torch.equal(buffer, host(2))


def test_a_wait_for_a_pinned_copy_is_not_put_off_by_what_is_staged_after_it(
    stager: Stager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeldBlock, "may_go", threading.Event())
    first, second = target_in(stager), target_in(stager)
    stager.copy(first, host())
    ready = stager.record("copy")
    stager.copy(second, HeldBlock(host(1)))
    stager.wait("compute", ready)
    stager.begin_use(first)
    assert torch.equal(first, host())
    HeldBlock.may_go.set()
    stager.synchronize()


def test_pinned_copies_go_straight_through_while_nothing_is_staged(stager: Stager) -> None:
    buffer = target_in(stager)
    stager.copy(buffer, host())
    stager.wait("compute", stager.record("copy"))
    assert torch.equal(buffer, host())
    assert stager._thread is None


def test_staging_pins_its_buffers_and_unpins_them_when_closed(device: EmulatedDevice) -> None:
    before = threading.active_count()
    stager = Stager(device, buffers=3, buffer_bytes=4096)
    buffer = target_in(stager)
    stager.copy(buffer, PageableBlock(host()))
    stager.synchronize()
    assert device.pinned_bytes == 3 * 4096
    assert device.activity.unpinned_copies == 0
    stager.close()
    assert device.pinned_bytes == 0
    device.close()
    assert threading.active_count() <= before


def test_staging_works_where_nothing_can_be_pinned() -> None:
    with EmulatedDevice(1024**2, pinned_budget_bytes=0) as device:
        stager = Stager(device, buffer_bytes=1024)
        buffer = target_in(stager)
        stager.copy(buffer, PageableBlock(host()))
        stager.synchronize()
        stager.close()
        assert torch.equal(buffer, host())


def test_pieces_of_files_land_where_they_belong(stager: Stager, file: Path) -> None:
    pieces = [
        FilePiece(path=file, file_offset=5000, offset=0, size=3000),
        FilePiece(path=file, file_offset=100, offset=3072, size=2000),
    ]
    buffer = target_in(stager, 5072)
    stager.copy(buffer, FileBlock(pieces, 5072))
    stager.synchronize()
    assert torch.equal(buffer[:3000], host()[5000:8000])
    assert torch.equal(buffer[3072:], host()[100:2100])


def _unlink(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    with path.open("r+b") as handle:
        handle.truncate(500)


def _replace(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(bytes(host(7).numpy()))
    other.replace(path)


@pytest.mark.parametrize("harm", [_unlink, _truncate, _replace], ids=lambda harm: harm.__name__)
def test_a_file_that_is_not_what_it_was_is_one_line_at_every_wait_for_its_copy(stager, file, harm) -> None:
    block, buffer = whole(file), target_in(stager)
    harm(file)
    stager.copy(buffer, block)
    ready = stager.record("copy")
    for wait in (lambda: stager.wait("compute", ready), lambda: stager.wait_host(ready)):
        with pytest.raises(RoostError, match=r"weights\.safetensors'") as caught:
            wait()
        assert "\n" not in str(caught.value)
    stager.copy(buffer, PageableBlock(host(3)))
    stager.wait("compute", stager.record("copy"))
    assert torch.equal(buffer, host(3))


class BreakingBlock(PageableBlock):
    """Can't be read from its second piece on."""

    def read_into(self, buffer: torch.Tensor, offset: int) -> None:
        if offset:
            raise RoostError("planted: the rest can't be read")
        super().read_into(buffer, offset)


def test_memory_of_a_copy_that_failed_half_way_is_given_back_once_the_lane_is_through(device: EmulatedDevice) -> None:
    transfers = Transfers(device)
    transfers.device = Stager(device, buffers=2, buffer_bytes=1024)
    for _ in range(5):
        buffer = target_in(transfers.device)
        transfers.device.copy(buffer, BreakingBlock(host()))
        transfers.outlast(transfers.device.record("copy"))
        device.free(buffer)
    transfers.close()


def test_a_failure_before_its_event_is_recorded_is_not_lost(stager: Stager, file: Path) -> None:
    block, buffer = whole(file), target_in(stager)
    file.unlink()
    stager.copy(buffer, block)
    while stager._pending:
        time.sleep(0.001)
    ready = stager.record("copy")
    with pytest.raises(RoostError, match="can't be read"):
        stager.wait("compute", ready)


def test_a_failure_that_no_event_took_comes_with_synchronize(stager: Stager, file: Path) -> None:
    block, buffer = whole(file), target_in(stager)
    file.unlink()
    stager.copy(buffer, block)
    with pytest.raises(RoostError, match="can't be read"):
        stager.synchronize()
    stager.synchronize()


def test_a_file_shorter_than_its_piece_is_an_error(stager: Stager, file: Path) -> None:
    block = FileBlock([FilePiece(path=file, file_offset=SIZE - 10, offset=0, size=20)], 20)
    with pytest.raises(RoostError, match=r"weights\.safetensors' ends before byte 10010"):
        block.read_into(torch.empty(20, dtype=torch.uint8), 0)


def test_a_file_that_never_was_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match=r"absent\.safetensors' can't be read"):
        whole(tmp_path / "absent.safetensors")


def test_a_staged_copy_of_the_wrong_size_or_lane_is_refused(stager: Stager) -> None:
    buffer = target_in(stager)
    with pytest.raises(ValueError, match="10000 bytes to 100"):
        stager.copy(buffer[:100], PageableBlock(host()))
    with pytest.raises(ValueError, match="compute lane"):
        stager.copy(buffer, PageableBlock(host()), "compute")
