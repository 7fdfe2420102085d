"""``roost run PLAN --on ray`` says what is wrong before it plans, or needs Ray; plans edited by hand are refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dry_runs import tiny_directory
from roost.cli.app import run
from roost.errors import InvalidFile, RoostError
from roost.plan import read_plan
from roost.residency.hold.away import AwayComponent

TINY = ("--vram", "64MiB", "--ram", "16GiB", "--headroom", "0", "--size", "64x64", "--steps", "2")
ON_RAY = ("--on", "ray", "--prompt", "a fox", "-o", "fox.png")

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fleet") / "fleet.yaml"
    words = ["--fleet", "3 x emulated", *TINY, "--layout", "roles"]
    assert run(["plan", str(tiny_directory("flux")), *words, "-o", str(path)]) == 0
    return path


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)


def _refusal(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
    capsys.readouterr()
    assert run(["run", *words]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "pip install 'roost[fleet]'"),
        (("--size", "512x512"), 4, "--size: more than this plan is for"),
        (("--trace-out", "t.json"), 2, "--trace-out is for a run on one card"),
        (("--update-plan",), 2, "--update-plan is for a run on one card"),
        (("--lora", "nothing.safetensors"), 2, "--lora is for a run on one card"),
        (("--no-fuse",), 2, "--fuse is for a run on one card"),
    ],
)
def test_what_is_wrong_with_the_request_is_told_before_ray_is_needed(
    fleet: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, told: str
) -> None:
    assert told in _refusal(capsys, code, str(fleet), *ON_RAY, *words)


def test_groups_are_not_chosen_by_the_memory_of_one_of_unlike_workers(
    fleet: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("a fox\na cat\n")
    words = ("--on", "ray", "--prompts", "prompts.txt", "-o", "fox.png", "--batch", "auto")
    assert "this plan's workers differ" in _refusal(capsys, 2, str(fleet), *words)


def test_a_model_is_not_planned_for_one_card_first(capsys: pytest.CaptureFixture[str]) -> None:
    told = _refusal(capsys, 2, str(tiny_directory("flux")), *ON_RAY, "--gpu", "emulated", "--vram", "64MiB")
    assert "roost plan MODEL --fleet SPEC -o PLAN" in told


def test_processes_of_torchrun_don_t_start_a_cluster_each(
    fleet: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "torchrun started 2 processes" in _refusal(capsys, 2, str(fleet), *ON_RAY)


def test_a_dry_run_shows_the_workers(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(fleet), *ON_RAY, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "1 × denoiser on emulated" in shown
    assert "by 3 workers" in shown
    assert run(["run", str(fleet), *ON_RAY, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["workers"] == ["encoder-1", "decoder-1", "denoiser-1"]


def _of_encoder(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["worker_plans"]["encoder-1"]
    return found


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda plan: _of_encoder(plan)["load_order"].append("unet"), "load_order and components differ in unet"),
        (lambda plan: _of_encoder(plan)["load_order"].append("text_encoder"), "load_order names a component twice"),
        (lambda plan: _of_encoder(plan)["budget"].update(deficit_bytes=1), "fits is True"),
        (lambda plan: plan["workers"][1].update(name="encoder-1"), "two workers have the same name"),
        (lambda plan: plan["workers"][1].update(device=0), "the same device of a host"),
        (lambda plan: plan["workers"][0].update(plan="nobody"), "workers and worker_plans differ in encoder-1, nobody"),
    ],
)
def test_a_fleet_s_plan_edited_by_hand_is_refused(fleet: Path, tmp_path: Path, edit: Edit, told: str) -> None:
    document = yaml.safe_load(fleet.read_text())
    edit(document)
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    with pytest.raises(InvalidFile, match=told):
        read_plan(tmp_path / "edited.yaml")


def test_a_fleet_s_plan_in_which_nobody_decodes_is_refused(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = yaml.safe_load(fleet.read_text())
    document["worker_plans"]["decoder-1"]["role"]["stages"] = ["encode"]
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    assert "none decodes; plan the fleet again" in _refusal(capsys, 2, "edited.yaml", *ON_RAY)


@pytest.mark.parametrize("read", [torch.sum, lambda weight: torch.cat([weight, weight])])
def test_who_reads_an_away_component_s_weights_hears_whose(read: Callable[[Any], Any]) -> None:
    module = torch.nn.Linear(2, 2)
    AwayComponent("vae", module, None, torch.device("cpu"))  # type: ignore[arg-type]
    with pytest.raises(RoostError, match="reads weights of vae itself"):
        read(module.weight)
