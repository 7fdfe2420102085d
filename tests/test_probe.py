"""``roost probe``: what is timed, what is not and why, and that plans take it from the store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dry_runs import tiny_directory
from measurements import EMULATED
from roost.cli.app import run
from roost.facts.rates import RateKey
from roost.probes.machine import disk_rate
from roost.probes.machine.gpu import GpuSurvey
from roost.profiles.store import MeasuredStore
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.rates import kernels, timing, transfers
from roost.residency.rates.measure import measure_rates
from roost.residency.rates.timing import reading_of
from roost.residency.rates.transfers import transfer_points
from roost.units import GiB, MiB

NAMES = set(RateKey)
TINY = kernels._Shapes(matmul=32, attention=(2, 16, 8), conv=(4, 8), elements=4096, launches=10)


@pytest.fixture(autouse=True)
def _little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_SAMPLE_S", 1e-4)
    monkeypatch.setattr(kernels, "_SMALL", TINY)
    monkeypatch.setattr(transfers, "_SMALL_BYTES", MiB)
    monkeypatch.setattr(disk_rate, "_OWN_BYTES", 64 * MiB)


@pytest.fixture
def device() -> Iterator[EmulatedDevice]:
    with EmulatedDevice(GiB, count_activations=True) as made:
        yield made


def probed(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert run(["probe", "--device", "emulated", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_rate_of_the_cost_model_is_timed_or_says_why_not(capsys) -> None:
    report = probed(capsys)
    assert set(report["rates"]) | set(report["missing"]) == NAMES
    assert set(report["missing"]) <= {"disk_bytes_per_s"}
    for name, rate in report["rates"].items():
        assert rate["value"] > 0, name
        assert rate["spread"] >= 1
        assert rate["n"] >= 2
        assert rate["ratio"] == pytest.approx(rate["value"] / rate["without"]["value"])
        assert rate["without"]["source"] == "spec"


def test_it_leaves_nothing_on_the_device_and_nothing_pinned(device: EmulatedDevice) -> None:
    found = measure_rates(device)
    assert set(found.readings) == NAMES - {"disk_bytes_per_s"}
    assert (device.used_bytes, device.pinned_bytes) == (0, 0)


def test_the_link_is_timed_by_the_road_that_blocks_take() -> None:
    with EmulatedDevice(GiB, h2d_bytes_per_s=4e9, d2h_bytes_per_s=2e9) as device:
        points = transfer_points(device)
        assert points["pinned_h2d_bytes_per_s"]().value <= 4.04e9  # a throttled copy can't be faster, only slower
        assert points["pageable_h2d_bytes_per_s"]().value <= 4.04e9
        assert points["pinned_d2h_bytes_per_s"]().value <= 2.02e9
        assert points["pageable_d2h_bytes_per_s"]().value <= 2.02e9
        copied = device.activity.enqueued_bytes
        assert copied["h2d"] > 0
        assert copied["d2h"] > 0


def test_what_the_system_refuses_is_missing_and_the_rest_is_not() -> None:
    with EmulatedDevice(GiB, pinned_budget_bytes=0) as device:
        found = measure_rates(device)
    refused = {"pinned_h2d_bytes_per_s", "pinned_d2h_bytes_per_s", "pin_bytes_per_s"}
    assert set(found.missing) == refused
    assert set(found.readings) == NAMES - refused - {"disk_bytes_per_s"}
    assert found.missing["pin_bytes_per_s"] == "the system refused to pin memory"


def test_without_room_on_the_device_copies_are_missing_and_it_goes_on() -> None:
    with EmulatedDevice(MiB // 2) as device:
        found = measure_rates(device)
        assert (device.used_bytes, device.pinned_bytes) == (0, 0)
    assert found.missing["pinned_h2d_bytes_per_s"] == "not enough memory is free on the device"
    assert "cast_bytes_per_s" in found.readings


def test_a_reading_is_the_median_and_its_spread_holds_every_sample() -> None:
    found = reading_of([4.0, 1.0, 2.0])
    assert (found.value, found.spread, found.n) == (2.0, 2.0, 3)


def test_saved_rates_are_what_the_next_plan_uses_and_others_stay(capsys) -> None:
    report = probed(capsys)
    assert not report["saved"]
    assert MeasuredStore().entries() == []
    report = probed(capsys, "--save")
    assert report["saved"]
    kept = MeasuredStore().read(EMULATED, None)
    assert kept is not None
    assert {name: rate.value for name, rate in kept.rates.items()} == {
        name: rate["value"] for name, rate in report["rates"].items()
    }
    size = ("--size", "64x64", "--frames", "9", "--steps", "2")
    assert (
        run(
            [
                "plan",
                str(tiny_directory("wan2.2")),
                "--gpu",
                "emulated",
                "--vram",
                "64MiB",
                "--headroom",
                "0",
                "-v",
                *size,
            ]
        )
        == 0
    )
    assert f"{len(report['rates'])} of 15 timed by themselves" in " ".join(capsys.readouterr().out.split())


def test_the_table_is_80_columns_wide_and_says_that_the_cpu_is_no_gpu(capsys) -> None:
    assert run(["probe", "--device", "emulated"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if " × " in line]
    assert len(table) == 15
    assert all(len(line) <= 80 for line in table)
    assert any("say nothing about a GPU" in line for line in lines)
    assert lines[-1] == "--save keeps them for roost plan"


def test_without_a_gpu_the_emulated_one_is_timed_unless_cuda_was_asked_for(monkeypatch, capsys) -> None:
    nobody = GpuSurvey(gpus=(), problem="NOBODY IS HERE. NAME A CARD.")
    monkeypatch.setattr("roost.api.measurements.probe.read_gpus", lambda **_: nobody)
    assert run(["probe", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["device"]["device_kind"] == "emulated"
    assert report["notes"][0] == "NOBODY IS HERE. NAME A CARD."
    assert run(["probe", "--device", "cuda"]) == 2
    assert "NOBODY IS HERE. NAME A CARD. Name a card with --gpu" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--device", "tpu"), "choose cuda or emulated"),
        (("--device", "emulated", "--file", "no-such-file"), "No such file"),
        (("--device", "emulated", "--file", __file__), "says nothing about a disk"),
        (("--device", "emulated", "--file", "."), "can't be read"),
    ],
)
def test_wrong_options_are_one_line(words: tuple[str, ...], said: str, capsys) -> None:
    assert run(["probe", *words]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_file_that_memory_holds_is_no_disk(tmp_path: Path, monkeypatch, capsys) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(1024) * (64 * 1024))
    monkeypatch.setattr(disk_rate, "_forget", lambda descriptor, size: True)
    report = probed(capsys, "--file", str(large), "--save")
    assert "page cache" in report["missing"]["disk_bytes_per_s"]
    kept = MeasuredStore().read(EMULATED, None)
    assert kept is not None
    assert "disk_bytes_per_s" not in kept.rates
    monkeypatch.setattr(disk_rate, "_forget", lambda descriptor, size: None)
    report = probed(capsys, "--file", str(large))
    assert report["rates"]["disk_bytes_per_s"]["n"] == 2
    assert any("does not tell" in note for note in report["notes"])


def test_the_temporary_file_is_gone_afterwards(tmp_path: Path) -> None:
    reading = disk_rate.read_disk(None, tmp_path / "cache")
    assert len(reading.bytes_per_s) == 2
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.gpu
def test_a_cuda_device_has_every_rate_and_nothing_stays_on_it() -> None:
    from roost.residency.device.cuda import CudaDevice

    with CudaDevice(8 * GiB) as device:
        before = device.used_bytes
        found = measure_rates(device)
        assert (device.used_bytes, device.pinned_bytes) == (before, 0)
    assert found.missing == {}
    assert set(found.readings) == NAMES - {"disk_bytes_per_s"}
    assert found.readings["matmul_flop_per_s"].value > found.readings["single_matmul_flop_per_s"].value
