"""The streaming benchmark runs to its end; what it measures is its result file's to say."""

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


@pytest.mark.slow
def test_the_script_measures_every_stack_and_residency_and_says_it_is_emulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run(tmp_path / "streaming.json", monkeypatch, "--passes", "2")
    assert record["device"] == "emulated"
    assert "timed waits" in record["hardware"]
    assert len(record["rows"]) == 2 * (5 + 3)
    assert {row["stack"] for row in record["rows"]} == {"transfer-bound", "compute-bound"}
    assert all(row["ratio"] > 0 for row in record["rows"])
    assert "strided" in capsys.readouterr().out


@pytest.mark.gpu
def test_the_same_script_runs_on_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = run(tmp_path / "streaming.json", monkeypatch, "--device", "cuda", "--passes", "3")
    assert record["device"] == "cuda"
