"""Files that can't be their component's, given at a shell or in Python: one line, the code, and nothing left behind."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("peft", reason="the LoRA among the files is made by peft")

import roost
from malformed_given_files import GIVEN, write_disk
from roost.cli.app import run
from roost.errors import InvalidFile, UsageError
from roost.user_folders import user_folder

PLANNED = ("--gpu", "emulated", "--vram", "1GiB", "--size", "64x64", "--policy", "rules")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("given")
    write_disk(folder)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def _recipes() -> list[str]:
    return sorted(path.name for path in (user_folder("cache") / "recipes").glob("*"))


@pytest.mark.parametrize("given", GIVEN)
def test_what_is_refused_is_one_line_and_leaves_nothing(given: str, disk: Path, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # others keep recipes of their own meanwhile
    kept = _recipes()
    assert run(["plan", *shlex.split(given), *PLANNED, "-o", "plan.yaml"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert GIVEN[given] in shown.err
    assert not (disk / "plan.yaml").exists()
    assert _recipes() == kept


@pytest.fixture(scope="module")
def planned(disk: Path) -> Path:
    path = disk / "good.yaml"
    assert run(["plan", "base", "--transformer", "good.gguf", *PLANNED, "-o", str(path)]) == 0
    return path


# What is typed after ``run PLAN``, the exit code and what is said.
RUNS = {
    "--file transformer=plain.safetensors": (4, "has another header"),
    "--file transformer=nowhere.gguf": (4, "say where it is now with --file transformer=PATH"),
    "--file transformer=half.gguf": (2, "interrupted download"),
    "--file transformer=folder.gguf": (2, "is a directory"),
    "--file vae=plain.safetensors": (2, "this plan takes no file for 'vae'"),
    "--file nope=plain.safetensors": (2, "this plan takes no file for 'nope'"),
    "--vae plain.safetensors": (2, "this plan takes no file for 'vae'"),
    "--file plain.safetensors": (2, "names no component"),
    "--model other": (2, "the model has no component"),
    "--model base --tokenizers base": (2, "leave --tokenizers out"),
}


@pytest.mark.parametrize("typed", RUNS)
def test_a_run_with_another_file_is_refused_in_one_line(typed: str, planned: Path, disk: Path, capsys) -> None:
    code, words = RUNS[typed]
    assert run(["run", str(planned), *shlex.split(typed), "--prompt", "a fox", "-o", "fox.png"]) == code
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert words in shown.err
    assert not list(disk.glob("fox*"))


IN_PYTHON: list[tuple[Any, type[Exception], str]] = [
    ("transformer", UsageError, "files is"),
    (["transformer"], UsageError, "names no component"),
    (5, UsageError, "files is"),
    (True, UsageError, "files is"),
    ([5], UsageError, "files"),
    ({"transformer": 5}, UsageError, "files"),
    ({"transformer": None}, UsageError, "files"),
    ({5: "good.gguf"}, UsageError, "files"),
    ({"transformer": b"good.gguf"}, UsageError, "files"),
    ({"transformer": "nowhere.gguf"}, InvalidFile, "can't be opened"),
    ({"nope": "good.gguf"}, UsageError, "no component"),
    ({"transformer": ""}, UsageError, "names no file"),
]


@pytest.mark.parametrize(("files", "error", "words"), IN_PYTHON, ids=[repr(each[0]) for each in IN_PYTHON])
def test_what_is_no_file_is_refused_in_python_too(files: Any, error: type[Exception], words: str, disk: Path) -> None:
    with pytest.raises(error) as refused:
        roost.make_plan("base", gpu="emulated", vram="1GiB", policy="rules", files=files)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
