"""Several prompts and seeds in one run: what is made, under which names, and what an interruption leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from roost.api.generations import generations_of
from roost.api.prompt_files import read_prompts
from roost.api.requests import RunRequest
from roost.cli.app import run
from roost.errors import InvalidFile
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
