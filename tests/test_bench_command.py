"""``roost bench`` as a person calls it: real trials of a tiny model, and refusals before anything runs."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from roost.api.bench import bench_target
from roost.api.requests.run_option_sets import BenchOptions
from roost.cli.app import run
from tiny_models import build

EMULATED = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0")
SMALL = ("--size", "64x64", "--frames", "9", "--steps", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build("wan2.1", tmp_path_factory.mktemp("bench") / "model"))


@pytest.mark.slow
def test_a_plan_is_raced_against_diffusers_alone_and_gives_its_bits(model: str, tmp_path: Path, capsys) -> None:
    plan, results = tmp_path / "plan.yaml", tmp_path / "results.json"
    assert run(["plan", model, *EMULATED, *SMALL, "--set", "all=layerwise-offload", "-o", str(plan)]) == 0
    capsys.readouterr()
    words = ["bench", str(plan), "--strategies", "resident", "--rounds", "1", "--link-speed", "4GB/s", "--json"]
    assert run([*words, "-o", str(results)]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert json.loads(results.read_text()) == document
    rows = {each["name"]: each for each in document["candidates"]}
    assert set(rows) == {"plain diffusers", "resident", "this plan"}
    assert {each["digest"] for each in rows.values()} == {rows["plain diffusers"]["digest"]} != {None}
    assert rows["this plan"]["bytes_copied"] > 0 == rows["resident"]["bytes_copied"]
    assert rows["this plan"]["peak_bytes"] < rows["resident"]["peak_bytes"]
    assert all(each["host_peak_bytes"] > each["peak_bytes"] > 0 for each in rows.values())
    assert document["winner"] in rows
    assert "emulated" in " ".join(document["warnings"])
    assert f"saved {results}" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--strategies", "fsdp"), "there is no 'fsdp'"),
        (("--against", "comfyui"), "diffusers is"),
        (("--rounds", "0"), "--rounds 0"),
        (("--link-speed", "fast"), "--link-speed"),
        (("--link-speed", "0"), "copies nothing"),
        (("-o", "/etc/passwd/results.json"), "'/etc/passwd' is not a folder"),
    ],
)
def test_wrong_options_are_one_line_with_exit_code_2(model: str, capsys, words: tuple[str, ...], said: str) -> None:
    assert run(["bench", model, *EMULATED, *SMALL, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_card_by_its_name_can_not_be_measured(model: str, capsys) -> None:
    assert run(["bench", model, "--gpu", "rtx-4090", *SMALL]) == 2
    assert "--gpu rtx-4090: trials run on the GPU that is here" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_without_files_is_measured_with_random_weights(
    model: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published models are too large for this test: a small one's inventory stands in, as if known by its name."""
    configs = tmp_path / "configs"
    shutil.copytree(model, configs, ignore=shutil.ignore_patterns("*.safetensors"))
    found = bench_target(model, BenchOptions(gpu="emulated", vram="64MiB", headroom="0", size=(64, 64), steps=2))
    inventory = replace(found.asked.question.inventory, path=None, source="name", family="small")
    asked = replace(found.asked, question=replace(found.asked.question, inventory=inventory))
    monkeypatch.setattr("roost.api.bench.bench_target", lambda *_: replace(found, asked=asked))
    monkeypatch.setattr("roost.api.trials.configs_of", lambda _: nullcontext(configs))
    assert run(["bench", "small", "--strategies", "resident", "--rounds", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == "small"
    assert {each["status"] for each in document["candidates"]} == {"ok"}
    assert len({each["digest"] for each in document["candidates"]}) == 1
    assert any("made at random" in warning for warning in document["warnings"])


def test_a_plan_has_decided_what_it_is_for(model: str, tmp_path: Path, capsys) -> None:
    plan = tmp_path / "plan.yaml"
    assert run(["plan", model, *EMULATED, *SMALL, "--policy", "rules", "-o", str(plan)]) == 0
    capsys.readouterr()
    assert run(["bench", str(plan), "--vram", "12GiB"]) == 2
    assert "--vram: the plan has decided that" in capsys.readouterr().err


def test_when_nothing_fits_nothing_runs_and_every_row_says_why(model: str, capsys) -> None:
    words = ["--gpu", "emulated", "--vram", "1MiB", "--headroom", "0", *SMALL]
    assert run(["bench", model, *words]) == 3
    out, err = capsys.readouterr()
    assert "does not fit" in out
    assert err.splitlines()[-1].startswith("error: nothing was tried")
    assert run(["bench", model, *words, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert {each["status"] for each in document["candidates"]} == {"skipped"}
    assert document["winner"] is None
