"""Several prompts and seeds in one run: what is made, under which names, and what an interruption leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import roost
from roost.api.requests.given_files import read_prompts
from roost.api.requests.request import RunRequest, generations_of
from roost.api.runs.pipeline import open_pipeline
from roost.api.runs.ready import check_plan, without_decoding
from roost.cli.app import run
from roost.cli.views.progress import Progress
from roost.errors import InvalidFile, UsageError
from roost.residency.media.outputs import save_outputs
from roost.residency.run.generate import tensor_digest
from tiny_models import build

EMULATED = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0", "--policy", "rules")
SMALL = ("--size", "64x64", "--steps", "2")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    build("sdxl", folder / "model")
    assert run(["plan", str(folder / "model"), *EMULATED, *SMALL, "-o", str(folder / "plan.yaml")]) == 0
    return folder / "plan.yaml"


def _record(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["run", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def _names(request: RunRequest) -> list[str]:
    return [each.output.name for each in generations_of(request) if each.output is not None]


def test_a_single_prompt_and_seed_keeps_the_output_s_name(tmp_path: Path) -> None:
    assert _names(RunRequest(prompts=("a fox",), output=tmp_path / "fox.png")) == ["fox.png"]


def test_several_seeds_are_told_apart_by_name(tmp_path: Path) -> None:
    request = RunRequest(prompts=("a fox",), seeds=(1, 2), output=tmp_path / "fox.png")
    assert _names(request) == ["fox-seed1.png", "fox-seed2.png"]


def test_listed_prompts_are_numbered_by_place_and_then_by_seed(tmp_path: Path) -> None:
    request = RunRequest(prompts=("a fox", "a dog"), listed=True, output=tmp_path / "out.png")
    assert _names(request) == ["out-0001.png", "out-0002.png"]
    request = RunRequest(prompts=("a fox", "a dog"), listed=True, seeds=(7, 8), output=tmp_path / "out.png")
    assert _names(request) == [
        "out-0001-seed7.png", "out-0001-seed8.png", "out-0002-seed7.png", "out-0002-seed8.png",
    ]  # fmt: skip


@pytest.mark.dealt(2)
def test_seeds_in_one_run_give_what_each_gives_alone(plan: Path, tmp_path: Path, capsys) -> None:
    alone = [
        _record(capsys, str(plan), "--prompt", "a fox", "--seed", seed, "-o", str(tmp_path / f"alone{seed}.png"))
        for seed in ("1", "2")
    ]
    both = _record(capsys, str(plan), "--prompt", "a fox", "--seed", "1", "--seed", "2", "-o", str(tmp_path / "f.png"))
    assert [each["digest"] for each in both["generations"]] == [each["digest"] for each in alone]
    assert both["output"] == [str(tmp_path / "f-seed1.png"), str(tmp_path / "f-seed2.png")]
    assert (tmp_path / "f-seed2.png").read_bytes() == (tmp_path / "alone2.png").read_bytes()
    assert both["digest"] not in [each["digest"] for each in alone]


@pytest.mark.parametrize("seeds", [("1", "1"), ("-1",), (str(2**63),)])
def test_seeds_that_no_run_takes_are_refused(plan: Path, seeds: tuple[str, ...], capsys) -> None:
    words = [word for seed in seeds for word in ("--seed", seed)]
    assert run(["run", str(plan), "--prompt", "a fox", *words]) == 2
    assert "--seed" in capsys.readouterr().err


def test_a_prompts_file_is_one_prompt_a_line_without_blank_and_comment_lines(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa fox\r\n\n  # not this\n  ein Fuchs im Schnee – weiß \n".encode())
    assert read_prompts(path) == ("a fox", "ein Fuchs im Schnee – weiß")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "holds no prompt"), (b"# only this\n", "holds no prompt"), (b"a fox\n\xff\xfe\n", "not UTF-8 in line 2")],
)
def test_a_prompts_file_that_is_none_is_refused_in_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(InvalidFile, match=said):
        read_prompts(path)


@pytest.mark.parametrize("words", [(), ("--prompt", "a fox", "--prompts", "prompts.txt")])
def test_a_run_needs_a_prompt_or_a_file_of_prompts_and_not_both(plan: Path, words: tuple[str, ...], capsys) -> None:
    assert run(["run", str(plan), *words]) == 2
    assert "either --prompt TEXT or --prompts FILE" in capsys.readouterr().err


def test_a_missing_prompts_file_is_one_line_and_exit_2(plan: Path, tmp_path: Path, capsys) -> None:
    assert run(["run", str(plan), "--prompts", str(tmp_path / "absent.txt")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a fox\na goose\na hare\n", encoding="utf-8")
    return path


def _pictures(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.glob("*.png")}


def test_listed_prompts_give_what_each_gives_alone_with_texts_encoded_first(plan, prompts, tmp_path, capsys) -> None:
    record = _record(capsys, str(plan), "--prompts", str(prompts), "-o", str(tmp_path / "out.png"))
    alone = [_record(capsys, str(plan), "--prompt", prompt)["digest"] for prompt in ("a fox", "a goose", "a hare")]
    assert [each["digest"] for each in record["generations"]] == alone
    assert [Path(each).name for each in record["output"]] == [f"out-000{number}.png" for number in (1, 2, 3)]
    assert record["texts"]["encoded_ahead"] is True
    assert all(each["name"] != "text encode" for generation in record["generations"] for each in generation["stages"])
    assert [each["name"] for each in record["stages"]][:2] == ["text encode"] * 2
    assert record["seconds"] >= sum(each["seconds"] for each in record["generations"])


def test_a_run_that_is_stopped_loses_nothing_finished_and_goes_on(plan, prompts, tmp_path, capsys, monkeypatch) -> None:
    words = [str(plan), "--prompts", str(prompts), "-o", str(tmp_path / "out.png")]
    whole = _record(capsys, *words[:-1], str(tmp_path / "whole.png"))

    def stop(progress: Progress, generation: Any, number: int, count: int) -> None:
        if number == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "on_generation", stop)
        assert run(["run", *words]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert set(_pictures(tmp_path)) >= {"out-0001.png", "out-0002.png"}
    assert not (tmp_path / "out-0003.png").exists()
    resumed = _record(capsys, *words)
    assert [each["skipped"] for each in resumed["generations"]] == [True, True, False]
    assert resumed["digest"] == whole["digest"]
    assert [each["seconds"] is None for each in resumed["generations"]] == [True, True, False]
    again = _record(capsys, *words)
    assert again["digest"] == whole["digest"]
    assert all(each["skipped"] for each in again["generations"])
    assert (again["load_s"], again["stages"]) == (0.0, [])


@pytest.mark.slow
def test_only_what_is_really_the_same_is_skipped(plan, prompts, tmp_path, capsys) -> None:
    words = [str(plan), "--prompts", str(prompts), "-o", str(tmp_path / "out.png")]
    _record(capsys, *words)
    prompts.write_text("a fox\na swan\na hare\n", encoding="utf-8")
    assert [each["skipped"] for each in _record(capsys, *words)["generations"]] == [True, False, True]
    for change in (("--steps", "1"), ("--seed", "1"), ("--negative-prompt", "rain")):
        assert not any(each["skipped"] for each in _record(capsys, *words, *change)["generations"])
    _record(capsys, *words)
    (tmp_path / "out-0001.png").write_bytes(b"somebody else's")
    (tmp_path / "out-0003.png").unlink()
    assert [each["skipped"] for each in _record(capsys, *words)["generations"]] == [False, True, False]


def test_a_torn_or_foreign_line_of_the_journal_costs_that_generation_only(plan, prompts, tmp_path, capsys) -> None:
    words = [str(plan), "--prompts", str(prompts), "-o", str(tmp_path / "out.png")]
    _record(capsys, *words)
    journal = tmp_path / "out.journal.jsonl"
    lines = [line for line in journal.read_bytes().splitlines() if line]
    assert len(lines) == 3
    outside = json.loads(lines[2])
    outside["files"] = {"../out-0003.png": next(iter(outside["files"].values()))}
    journal.write_bytes(b"\n".join([lines[0], b"[" * 10_000, json.dumps(outside).encode(), lines[1][:40]]))
    assert [each["skipped"] for each in _record(capsys, *words)["generations"]] == [True, False, False]
    assert all(each["skipped"] for each in _record(capsys, *words)["generations"])


def test_a_journal_that_is_no_file_is_refused_in_one_line(plan, prompts, tmp_path, capsys) -> None:
    (tmp_path / "out.journal.jsonl").mkdir()
    assert run(["run", str(plan), "--prompts", str(prompts), "-o", str(tmp_path / "out.png")]) == 2
    error = capsys.readouterr().err
    assert "is a directory" in error
    assert error.count("\n") == 1


def test_a_single_generation_keeps_no_journal_and_is_made_again(plan, tmp_path, capsys) -> None:
    words = (str(plan), "--prompt", "a fox", "-o", str(tmp_path / "fox.png"))
    assert [_record(capsys, *words)["generations"][0]["skipped"] for _ in range(2)] == [False, False]
    assert [each.name for each in tmp_path.iterdir()] == ["fox.png"]


def test_the_screen_names_each_generation_and_says_what_was_there(plan, prompts, tmp_path, capsys) -> None:
    words = ["run", str(plan), "--prompts", str(prompts), "-o", str(tmp_path / "out.png")]
    assert run(words) == 0
    captured = capsys.readouterr()
    assert "generation 2 of 3: seed 0" in captured.err
    assert "3 of 3 generations in" in captured.out
    assert "texts encoded first, in" in captured.out
    assert f"saved {tmp_path / 'out-0002.png'}" in captured.out
    assert run(words) == 0
    captured = capsys.readouterr()
    assert "all were there already, so nothing was loaded" in captured.out
    assert "seed 0, was there: a goose" in captured.out


def test_latents_are_a_safetensors_file_and_the_vae_never_comes_in(plan, tmp_path, capsys) -> None:
    output = tmp_path / "fox.safetensors"
    words = (str(plan), "--prompt", "a fox", "--output-type", "latent")
    record = _record(capsys, *words, "-o", str(output))
    latents = load_file(output)["latents"]
    assert latents.shape == (1, 4, 8, 8)
    assert tensor_digest(latents) == record["digest"] != _record(capsys, str(plan), "--prompt", "a fox")["digest"]
    assert record["latent_digest"] is None
    assert "vae" not in [each["component"] for each in record["stages"]]
    assert any("vae: decodes nothing" in each for each in record["changes"])
    assert [each.name for each in tmp_path.iterdir()] == ["fox.safetensors"]
    assert output.stat().st_mode == plan.stat().st_mode  # as readable as any other file
    with safe_open(output, framework="pt") as file:
        assert {
            "pipeline": "StableDiffusionXLPipeline",
            "prompt": "a fox",
            "seed": "0",
        }.items() <= file.metadata().items()


def test_latents_need_no_room_for_a_vae_that_was_to_stay(plan, tmp_path, capsys) -> None:
    document = roost.load_plan(plan)
    assert document.components["vae"].strategy == "resident"
    held = open_pipeline(without_decoding(check_plan(document)))
    try:
        assert not held.runtime.components["vae"].present
        assert held.runtime.components["unet"].present
    finally:
        held.close()


@pytest.mark.parametrize(
    ("kind", "name"), [("latent", "fox.png"), ("decoded", "fox.safetensors"), ("pixels", "fox.png")]
)
def test_an_output_that_fits_no_output_type_is_refused(kind: str, name: str, plan, tmp_path, capsys) -> None:
    words = ("--prompt", "a fox", "--output-type", kind, "-o", str(tmp_path / name))
    assert run(["run", str(plan), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_longest_name_that_is_accepted_can_be_written_with_every_number(tmp_path: Path) -> None:
    longest = next(
        name for length in range(255, 0, -1) if _accepted(tmp_path / (name := "f" * (length - len(".png")) + ".png"))
    )
    request = RunRequest(prompts=("a fox",), listed=True, seeds=(2**63 - 1, 0), output=tmp_path / longest)
    paths = save_outputs(torch.rand(2, 3, 8, 8), generations_of(request)[0].output)
    assert all(path.is_file() for path in paths)


def _accepted(output: Path) -> bool:
    try:
        RunRequest(prompts=("a fox",), output=output)
    except UsageError:
        return False
    return True
