"""What ``roost run`` says before it loads anything: dry runs, and the folders that outputs go to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edited_plans import edited
from roost.api.runs import ready
from roost.api.runs import run as api_run
from roost.cli.app import run
from roost.facts.machine import HostFacts
from tiny_models import build, default_call

CALL = default_call("wan2.2")
PLANNED = (
    "--gpu", "emulated", "--vram", "64MiB", "--headroom", "0", "--policy", "rules",
    "--size", f"{CALL['width']}x{CALL['height']}", "--frames", str(CALL["num_frames"]),
    "--steps", str(CALL["num_inference_steps"]),
)  # fmt: skip


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    path = folder / "plan.yaml"
    assert run(["plan", str(build("wan2.2", folder / "model")), *PLANNED, "-o", str(path)]) == 0
    return path


def _for_a_card_that_is_not_here(document) -> None:
    document["machine"]["gpu"] |= {"device_kind": "cuda", "name": "NVIDIA GeForce RTX 4090"}


def test_a_dry_run_needs_no_gpu(plan, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = edited(plan, tmp_path / "card.yaml", _for_a_card_that_is_not_here)
    words = ["run", str(path), "--prompt", "a fox", "-o", str(tmp_path / "new" / "fox.mp4")]
    assert run([*words, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["device_kind"], len(found["changes"])) == ("cuda", 1)
    assert found["changes"][0].startswith("not on this machine, as it is now: this plan is for NVIDIA GeForce RTX 4090")
    assert not (tmp_path / "new").exists()
    assert run(words) == 4


def test_a_dry_run_needs_no_free_memory(plan, monkeypatch, capsys) -> None:
    monkeypatch.setattr(ready, "read_host", lambda **_: HostFacts(available_bytes=1, pinnable_bytes=1, source="a test"))
    assert run(["run", str(plan), "--prompt", "a fox", "--dry-run"]) == 0
    assert "change: not on this machine, as it is now: loading needs" in capsys.readouterr().out
    assert run(["run", str(plan), "--prompt", "a fox"]) == 3


def test_a_dry_run_of_what_fits_nowhere_is_refused(plan, tmp_path, capsys) -> None:
    def grow(document) -> None:
        document["fits"], document["certainty"] = False, None
        document["budget"] |= {"deficit_bytes": 1, "verdict": "does not fit."}

    path = edited(plan, tmp_path / "large.yaml", grow)
    assert run(["run", str(path), "--prompt", "a fox", "--dry-run"]) == 3


def test_folders_of_the_output_are_made(plan, tmp_path, capsys) -> None:
    output = tmp_path / "new" / "and newer" / "fox.mp4"
    assert run(["run", str(plan), "--prompt", "a fox", "-o", str(output)]) == 0
    assert output.stat().st_size > 0
    below = output / "x" / "fox.mp4"
    assert run(["run", str(plan), "--prompt", "a fox", "-o", str(below)]) == 2
    assert f"'{output}' is not a folder; choose another place with -o" in capsys.readouterr().err


def test_a_folder_that_can_not_be_made_is_known_before_anything_loads(plan, tmp_path, monkeypatch, capsys) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(api_run, "open_pipeline", lambda *_: pytest.fail("it loads"))
    assert run(["run", str(plan), "--prompt", "a fox", "-o", str(tmp_path / "new" / "fox.mp4")]) == 1
    assert "No space left on device; choose another place with -o" in capsys.readouterr().err
