"""The GPU suite goes on where it stopped, starts nothing that can't end in time, and tables every result."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SUITE = Path(__file__).parents[1] / "benchmarks" / "gpu"


@pytest.fixture(autouse=True)
def _suite_on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(SUITE))
    yield
    for name in set(sys.modules) - before:
        if name in ("suite", "items", "tables", "subject", "smoke", "gpu_tests"):
            del sys.modules[name]


def writer(tmp_path: Path, body: str) -> tuple[str, ...]:
    script = tmp_path / f"script-{abs(hash(body))}.py"
    script.write_text(f"import pathlib, sys, time\noutput = pathlib.Path(sys.argv[-1])\n{body}\n")
    return (str(script),)


def outcomes(results: Path, *items: tuple[str, float, tuple[str, ...]], minutes: float = 5.0) -> list[tuple[str, str]]:
    from items import Item
    from suite import run_items

    wanted = [Item(name, limit, "a test", command) for name, limit, command in items]
    return [(each.item.name, each.what) for each in run_items(wanted, results, minutes)]


def test_an_item_that_is_known_is_not_measured_again_and_a_failed_one_is(tmp_path: Path) -> None:
    good = ("good", 1.0, writer(tmp_path, "output.write_text('{\"n\": 1}')"))
    bad = ("bad", 1.0, writer(tmp_path, "sys.exit('no such thing')"))
    assert outcomes(tmp_path, good, bad) == [("good", "done"), ("bad", "failed")]
    (tmp_path / "good.json").write_text('{"n": 2}')
    assert outcomes(tmp_path, good, bad) == [("good", "known"), ("bad", "failed")]
    assert json.loads((tmp_path / "good.json").read_text()) == {"n": 2}
    assert "no such thing" in (tmp_path / "bad.log").read_text()


def test_nothing_starts_that_can_not_end_in_the_time_left(tmp_path: Path) -> None:
    short = ("short", 0.01, writer(tmp_path, "output.write_text('{}')"))
    long = ("long", 9.0, writer(tmp_path, "output.write_text('{}')"))
    assert outcomes(tmp_path, long, short, minutes=1.0) == [("long", "no time"), ("short", "done")]


def test_an_item_that_hangs_is_ended_and_leaves_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import suite

    monkeypatch.setattr(suite, "STARTING_S", 0.5)
    stuck = ("stuck", 0.0, writer(tmp_path, "time.sleep(60)"))
    assert outcomes(tmp_path, stuck) == [("stuck", "failed")]
    assert not (tmp_path / "stuck.json").exists()


def test_the_items_of_all_devices_are_named_once_and_their_scripts_exist(tmp_path: Path) -> None:
    from items import items_for

    for device in ("cuda", "emulated", "simulated"):
        items = items_for(device)
        assert len({item.name for item in items}) == len(items)
        scripts = [item.command[0] for item in items if item.command[0] != "-m"]
        assert all(Path(each).is_file() for each in scripts)


def test_a_page_of_emulated_results_says_so(tmp_path: Path) -> None:
    from tables import write_tables

    generations = [{"seconds": 1.0, "peak_bytes": 2**30, "reserved_bytes": None}] * 3
    record = {"device_kind": "emulated", "hardware": "the CPU", "steps": 4, "load_s": 1.0, "generations": generations}
    (tmp_path / "small-generations.json").write_text(json.dumps(record))
    (tmp_path / "tests.json").write_text(
        json.dumps({"tests": 3, "passed": 1, "failures": 1, "errors": 0, "skipped": 1, "failed": ["tests.x::y"]})
    )
    page = write_tables(tmp_path).read_text()
    assert "**Emulated: these figures are of a CPU" in page
    assert "1 passed, 1 failed, 0 in error, 1 skipped." in page
    assert "failed: `tests.x::y`" in page
    assert "| 3 | 1 s | 1.00 GiB |  |" in page


def test_the_first_minute_writes_each_part_as_it_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import smoke
    from tables import write_tables

    known_at_tiny = []

    def fails(kind: str) -> dict[str, object]:
        known_at_tiny.append(json.loads((tmp_path / "smoke.json").read_text()))
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(smoke.PARTS, "tiny", fails)
    words = ["smoke", "--device", "emulated", "--only", "card", "tiny", "stack", "-o", str(tmp_path / "smoke.json")]
    monkeypatch.setattr(sys, "argv", words)
    assert smoke.main() == 1
    assert set(known_at_tiny[0]) == {"device_kind", "failed", "card", "seconds"}
    record = json.loads((tmp_path / "smoke.json").read_text())
    assert record["failed"] == {"tiny": "RuntimeError: no such kernel"}
    assert set(record["stack"]) == {"0", "0.5", "resident"}
    page = write_tables(tmp_path).read_text()
    assert "- failed: tiny: RuntimeError: no such kernel" in page
    assert "| resident | " in page


def test_tests_on_a_gpu_are_run_by_the_names_of_their_files() -> None:
    from gpu_tests import files_with_gpu_tests

    named = {each.name for each in files_with_gpu_tests()}
    assert {"test_cuda.py", "test_cuda_device.py", "test_cuda_elastic.py", "test_peers.py", "test_probe.py"} <= named
    assert len(named) < 12
