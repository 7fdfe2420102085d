"""A plan of a pipeline in memory, saved and run later by the command line: it knows no directory, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from attach_options import SMALL
from live_pipelines import own_pipeline
from roost.api.attach import plan_pipeline
from roost.cli.app import run
from roost.plan import plan_to_yaml, read_plan


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model and the plan."""
    folder = tmp_path_factory.mktemp("saved")
    pipeline = own_pipeline("flux")
    pipeline.save_pretrained(folder / "model")
    plan = plan_pipeline(pipeline, vram="1GiB", ram="8GiB", headroom="0GiB", **SMALL)
    (folder / "plan.yaml").write_text(plan_to_yaml(plan), encoding="utf-8")
    return folder


def told(command: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    code = run(command)
    return code, capsys.readouterr().err.splitlines()


def test_it_says_that_it_is_of_a_pipeline_in_memory(saved: Path) -> None:
    model = read_plan(saved / "plan.yaml").model
    assert (model.source, model.path, model.files) == ("memory", None, {})


@pytest.mark.parametrize("command", [["run"], ["timeline"], ["bench"]])
def test_without_a_directory_it_says_in_one_line_what_it_needs(command: list[str], saved: Path, capsys) -> None:
    output = {"run": "out.png", "timeline": "out.html", "bench": "out.json"}[command[0]]
    code, lines = told([*command, str(saved / "plan.yaml"), "-o", str(saved / output)], capsys)
    assert (code, len(lines)) == (2, 1)
    assert "this plan was made of a FluxPipeline in memory; say where that model is with --model DIR." in lines[0]


def test_with_its_model_s_directory_it_runs(saved: Path, capsys) -> None:
    given = ["--model", str(saved / "model"), "--prompt", "a fox", "-o", str(saved / "fox.png")]
    assert told(["run", str(saved / "plan.yaml"), *given], capsys)[0] == 0
    assert (saved / "fox.png").is_file()


def test_with_another_model_it_is_refused(saved: Path, tmp_path: Path, capsys) -> None:
    own_pipeline("wan2.2").save_pretrained(tmp_path)
    given = ["--model", str(tmp_path), "--prompt", "a fox", "-o", str(saved / "fox.png")]
    code, lines = told(["run", str(saved / "plan.yaml"), *given], capsys)
    assert code == 4
    assert "the plan is for a FluxPipeline, here is 'WanPipeline'" in lines[-1]


@pytest.mark.parametrize(("family", "source"), [(None, "memory"), ("flux", "name")])
def test_a_plan_that_was_saved_before_there_was_a_source(family: str | None, source: str, saved: Path, tmp_path: Path):
    """By a name or of a pipeline in memory: only what no family was recognised in can't be a name."""
    old = yaml.safe_load((saved / "plan.yaml").read_text(encoding="utf-8"))
    assert (old["model"].pop("source"), old["model"]["path"]) == ("memory", None)
    old["model"]["family"] = family
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old), encoding="utf-8")
    model = read_plan(tmp_path / "old.yaml").model
    assert model == read_plan(saved / "plan.yaml").model.model_copy(update={"family": family, "source": source})


@pytest.mark.parametrize("command", [["run"], ["timeline"], ["bench"]])
def test_an_older_one_says_in_one_line_what_it_needs(command: list[str], saved: Path, tmp_path: Path, capsys) -> None:
    old = yaml.safe_load((saved / "plan.yaml").read_text(encoding="utf-8"))
    del old["model"]["source"]
    old["model"]["family"] = None
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old), encoding="utf-8")
    output = {"run": "out.png", "timeline": "out.html", "bench": "out.json"}[command[0]]
    code, lines = told([*command, str(tmp_path / "old.yaml"), "-o", str(tmp_path / output)], capsys)
    assert (code, len(lines)) == (2, 1)
    assert "this plan was made of a FluxPipeline in memory; say where that model is with --model DIR." in lines[0]


def test_what_is_in_memory_has_no_path(saved: Path, tmp_path: Path, capsys) -> None:
    old = yaml.safe_load((saved / "plan.yaml").read_text(encoding="utf-8"))
    old["model"] |= {"path": "/models/flux", "source": "memory"}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old), encoding="utf-8")
    assert told(["explain", str(tmp_path / "old.yaml")], capsys)[0] == 2
