"""``roost run --update-plan``: what memory did not allow goes into the record and back into the plan's file."""

import json
from pathlib import Path

import pytest
import yaml

from out_of_memory import failing_device
from roost.cli.app import run
from roost.plan import read_plan
from roost.residency.device import choice as devices
from tiny_models import build

EMULATED = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0")
WORKLOAD = ("--size", "64x64", "--steps", "2")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    model, path = build("sdxl", tmp_path / "model"), tmp_path / "plan.yaml"
    choice = ("--set", "all=layerwise-offload,resident_blocks=2")
    assert run(["plan", str(model), *EMULATED, *WORKLOAD, *choice, "-o", str(path)]) == 0
    return path


@pytest.mark.dealt(2)
@pytest.mark.parametrize("update", [True, False])
def test_the_plan_file_changes_when_asked_and_the_record_tells_either_way(
    plan: Path, update: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["run", str(plan), "--prompt", "a fox", "--json", *(["--update-plan"] if update else [])]
    before = plan.read_text()
    assert run(command) == 0
    right = json.loads(capsys.readouterr().out)
    assert plan.read_text() == before
    # The first component's trunk comes in, and then its first block does not.
    monkeypatch.setattr(devices, "open_device", lambda kind, budget, headroom: failing_device(budget, 2))
    assert run(command) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["digest"] == right["digest"]
    assert [each.split(",")[0] for each in record["changes"]] == ["text_encoder: 0 resident blocks instead of 2"]
    assert (plan.read_text() != before) == update
    if not update:
        return
    written = yaml.safe_load(plan.read_text())["components"]["text_encoder"]
    assert (written["resident_blocks"], written["decided_by"]) == (0, "run:out-of-memory")
    monkeypatch.undo()
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == right["digest"]


def test_only_a_plan_in_a_file_can_be_updated(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(plan.parent / "model")
    assert run(["run", model, "--prompt", "a fox", "--update-plan", *EMULATED]) == 2
    assert capsys.readouterr().err.startswith("error: --update-plan: ")


def test_what_a_load_gave_up_is_in_the_record_and_goes_into_the_plan_s_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = build("sdxl", tmp_path / "model"), tmp_path / "plan.yaml"
    assert run(["plan", str(model), *EMULATED, *WORKLOAD, "--set", "all=resident", "-o", str(path)]) == 0
    first = read_plan(path).load_order[0]
    command = ["run", str(path), "--prompt", "a fox", "--json"]
    capsys.readouterr()
    assert run(command) == 0
    right = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(devices, "open_device", lambda kind, budget, headroom: failing_device(budget, 1))
    assert run([*command, "--update-plan"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["digest"] == right["digest"]
    assert record["changes"] == [
        f"{first}: on the device during its stages only, instead of resident, because memory ran out in placing {first}"
    ]
    written = read_plan(path).components[first]
    assert (written.strategy, written.decided_by) == ("snapshot-offload", "run:out-of-memory")
