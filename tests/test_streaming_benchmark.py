"""The streaming benchmark runs, and streaming comes near its bound on a device whose times are known."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "streaming.py"


def run(output: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "-o", str(output), *options])
    monkeypatch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0
    return json.loads(output.read_text())


def test_strided_streaming_takes_no_more_than_a_tenth_above_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run(tmp_path / "streaming.json", monkeypatch, "--passes", "2")
    assert record["device"] == "emulated"
    assert "timed waits" in record["hardware"]
    assert len(record["rows"]) == 2 * (5 + 3)
    assert record["median_ratio"]["strided"] <= 1.10
    # Nothing can be faster than its bound, save for what the clocks' reading costs.
    assert all(row["ratio"] > 0.97 for row in record["rows"])
    leading = {row["resident_blocks"]: row["ratio"] for row in record["rows"] if _is_hard(row)}
    assert leading[10] > 1.15
    assert "strided" in capsys.readouterr().out


def _is_hard(row: dict[str, Any]) -> bool:
    return row["stack"] == "transfer-bound" and row["policy"] == "leading"


@pytest.mark.gpu
def test_the_same_script_runs_on_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = run(tmp_path / "streaming.json", monkeypatch, "--device", "cuda", "--passes", "3")
    assert record["device"] == "cuda"
    assert all(cost["resident_s"] < 2e-6 for cost in record["overhead_per_block"])
