"""What enters the decode is on the disk before it begins, and a failed run goes on from there with the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from roost.cli.app import run
from roost.errors import RoostError
from roost.residency.run.generate import tensor_digest
from roost.residency.run.kept import files, steps
from tiny_models import build

EMULATED = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0", "--policy", "rules")
SMALL = ("--size", "64x64", "--steps", "3")
# A run that tells when its decode begins, and stays there.
KILLED = """
import sys, time
from diffusers import AutoencoderKL
def decode(*_, **__):
    print("here", flush=True)
    time.sleep(60)
AutoencoderKL.decode = decode
import roost.cli
roost.cli.main()
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    build("sdxl", folder / "model")
    assert run(["plan", str(folder / "model"), *EMULATED, *SMALL, "-o", str(folder / "plan.yaml")]) == 0
    return folder / "plan.yaml"


@pytest.fixture(scope="module")
def whole(plan: Path) -> str:
    """The digest of the uninterrupted run."""
    return _digest_of(plan.parent / "whole.png", plan)


def _digest_of(output: Path, plan: Path) -> str:
    from roost.api.requests.request import RunRequest
    from roost.api.runs.ready import check_plan
    from roost.api.runs.run import run_plan
    from roost.plan import read_plan

    return run_plan(check_plan(read_plan(plan)), RunRequest(prompts=("a fox",), output=output)).digest


@pytest.fixture
def fox(plan: Path, tmp_path: Path) -> list[str]:
    return [str(plan), "--prompt", "a fox", "-o", str(tmp_path / "fox.png")]


def _record(capsys: pytest.CaptureFixture[str], words: list[str], *more: str) -> tuple[dict[str, Any], str]:
    """What the run says on stdout, and on stderr."""
    capsys.readouterr()
    assert run(["run", *words, *more, "--json"]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


@contextmanager
def _failing(kind: type, method: str, error: Callable[[], BaseException], first: int = 1) -> Iterator[None]:
    """From this one on, calls of a class's method fail before they begin."""
    original, count = getattr(kind, method), [0]

    def fails(self: Any, *args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] >= first:
            raise error()
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, method, fails)
        yield


def _fail_in_the_decode(words: list[str]) -> None:
    with _failing(AutoencoderKL, "decode", KeyboardInterrupt):
        assert run(["run", *words]) == 130


def _names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.mark.dealt(2)
@pytest.mark.parametrize(("error", "code"), [(torch.OutOfMemoryError, 5), (KeyboardInterrupt, 130), (LookupError, 1)])
def test_a_failure_in_the_decode_costs_no_step(error, code, whole, fox, tmp_path, capsys) -> None:
    with _failing(AutoencoderKL, "decode", error):
        assert run(["run", *fox]) == code
    assert _names(tmp_path) == ["fox.png.latents.safetensors"]
    said = capsys.readouterr().err
    assert f"kept '{tmp_path / 'fox.png.latents.safetensors'}': the same command goes on from there." in said
    with _failing(UNet2DConditionModel, "forward", AssertionError):
        record, _ = _record(capsys, fox)
    assert record["digest"] == whole
    assert record["resumed_from"] == {"output": str(tmp_path / "fox.png"), "stage": "decode", "step": 3}
    assert record["generations"][0]["resumed_from"] == record["resumed_from"]
    assert record["latents"] == []
    assert _names(tmp_path) == ["fox.png"]


def test_a_plan_that_decodes_otherwise_goes_on_from_the_same_latents(plan, fox, tmp_path, capsys) -> None:
    tiled = tmp_path / "tiled.yaml"
    words = ("--set", "vae=resident,tiling=true", "--set", "dit=layerwise-offload")
    assert run(["plan", str(plan.parent / "model"), *EMULATED, *SMALL, *words, "-o", str(tiled)]) == 0
    _fail_in_the_decode(fox)
    record, _ = _record(capsys, [str(tiled), *fox[1:]])
    assert record["resumed_from"]["stage"] == "decode"
    anew, _ = _record(capsys, [str(tiled), *fox[1:]], "--no-resume")
    assert record["digest"] == anew["digest"]


def test_what_is_kept_is_what_enters_the_decode(fox, tmp_path, capsys) -> None:
    _fail_in_the_decode(fox)
    kept = load_file(tmp_path / "fox.png.latents.safetensors")
    record, _ = _record(capsys, fox, "--no-resume")
    assert record["latent_digest"] == tensor_digest(kept["decode.0"])


def test_a_run_that_went_well_keeps_nothing_and_went_on_from_nothing(fox, tmp_path, capsys) -> None:
    record, said = _record(capsys, fox)
    assert (record["latents"], record["resumed_from"]) == ([], None)
    assert _names(tmp_path) == ["fox.png"]
    assert "kept '" not in said


def test_no_resume_starts_anew_and_leaves_nothing(whole, fox, tmp_path, capsys) -> None:
    _fail_in_the_decode(fox)
    record, _ = _record(capsys, fox, "--no-resume")
    assert (record["digest"], record["resumed_from"]) == (whole, None)
    assert [each["phase"] for each in record["stages"]].count("denoise") == 1
    assert _names(tmp_path) == ["fox.png"]


@pytest.mark.dealt(2)
@pytest.mark.parametrize("change", [("--prompt", "a goose"), ("--steps", "2")])
def test_what_belongs_to_another_generation_is_moved_aside_with_one_line(change, fox, tmp_path, capsys) -> None:
    _fail_in_the_decode(fox)
    kept = (tmp_path / "fox.png.latents.safetensors").read_bytes()
    words = [*fox[:1], *change, *fox[3:]] if change[0] == "--prompt" else [*fox, *change]
    record, said = _record(capsys, words)
    assert record["resumed_from"] is None
    assert _names(tmp_path) == ["fox.png", "fox.png.latents.safetensors.1"]
    assert (tmp_path / "fox.png.latents.safetensors.1").read_bytes() == kept
    assert said.count("belongs to another generation ('seed 0, a fox'); it is not used.") == 1
    assert said.count("and is now") == 1


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 1
    path.write_bytes(raw)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _of_somebody(path: Path) -> None:
    path.unlink()
    save_file({"latents": torch.zeros(2)}, path)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.dealt(3)
@pytest.mark.parametrize("spoil", [_cut, _flip, _empty, _of_somebody, _pipe])
def test_a_damaged_file_is_one_line_and_a_new_start(spoil, whole, fox, tmp_path, capsys) -> None:
    _fail_in_the_decode(fox)
    spoil(tmp_path / "fox.png.latents.safetensors")
    record, said = _record(capsys, fox)
    assert (record["digest"], record["resumed_from"]) == (whole, None)
    assert said.count("it is not used.") == 1
    assert (tmp_path / "fox.png").exists()


def test_an_interrupted_one_of_many_goes_on_and_the_finished_ones_are_left(fox, tmp_path, capsys) -> None:
    words = [*fox, "--seed", "1", "--seed", "2", "--seed", "3"]
    with _failing(AutoencoderKL, "decode", KeyboardInterrupt, first=2):
        assert run(["run", *words]) == 130
    assert _names(tmp_path) == ["fox-seed1.png", "fox-seed2.png.latents.safetensors", "fox.journal.jsonl"]
    record, _ = _record(capsys, words)
    assert [each["skipped"] for each in record["generations"]] == [True, False, False]
    gone_on = {"output": str(tmp_path / "fox-seed2.png"), "stage": "decode", "step": 3}
    assert [each["resumed_from"] for each in record["generations"]] == [None, gone_on, None]
    assert record["resumed_from"] == gone_on
    anew, _ = _record(capsys, [*words[:4], str(tmp_path / "anew.png"), *words[5:]])
    assert record["digest"] == anew["digest"]


def test_a_run_that_was_killed_after_saving_leaves_nothing_to_the_next(fox, tmp_path, capsys, monkeypatch) -> None:
    words = [*fox, "--seed", "1", "--seed", "2"]
    with monkeypatch.context() as patched:
        patched.setattr(files.KeptFiles, "remove", lambda *_: None)
        assert run(["run", *words]) == 0
    assert "fox-seed1.png.latents.safetensors" in _names(tmp_path)
    record, _ = _record(capsys, words)
    assert all(each["skipped"] for each in record["generations"])
    assert record["latents"] == []
    assert _names(tmp_path) == ["fox-seed1.png", "fox-seed2.png", "fox.journal.jsonl"]


def test_of_latents_as_output_nothing_is_kept(plan, tmp_path, capsys) -> None:
    words = [str(plan), "--prompt", "a fox", "--output-type", "latent", "-o", str(tmp_path / "fox.safetensors")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("roost.api.runs.run.save_generation", _interrupt)
        assert run(["run", *words]) == 130
    assert _names(tmp_path) == []


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_disk_that_fails_costs_the_keeping_and_not_the_run(whole, fox, tmp_path, capsys, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise RoostError("can't write it: No space left on device; choose another place with -o.")

    monkeypatch.setattr(files, "write_bytes_atomically", full)
    record, said = _record(capsys, fox)
    assert record["digest"] == whole
    assert said.count("nothing is kept of seed 0, a fox: can't write it: No space left on device") == 1
    assert _names(tmp_path) == ["fox.png"]


def test_a_failure_in_a_step_costs_the_steps_since_the_last_kept_one(whole, fox, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(steps, "EVERY_S", 0.0)
    with _failing(UNet2DConditionModel, "forward", KeyboardInterrupt, first=3):
        assert run(["run", *fox]) == 130
    assert _names(tmp_path) == ["fox.png.step.safetensors"]
    record, _ = _record(capsys, fox)
    assert record["digest"] == whole
    assert record["resumed_from"] == {"output": str(tmp_path / "fox.png"), "stage": "denoise", "step": 2}
    assert _names(tmp_path) == ["fox.png"]


@pytest.mark.slow
def test_what_a_run_that_went_on_took_teaches_the_next_plan_nothing(tmp_path, capsys, monkeypatch) -> None:
    build("sdxl", tmp_path / "model")
    plan = tmp_path / "plan.yaml"
    assert run(["plan", str(tmp_path / "model"), *EMULATED[:-2], *SMALL, "-o", str(plan)]) == 0
    words = [str(plan), "--prompt", "a fox", "-o", str(tmp_path / "fox.png")]
    _fail_in_the_decode(words)
    compared = _record(capsys, words)[0]["compared"]
    assert (compared["kept"], compared["first_s"]) == (False, None)
    assert "it went on from what an earlier run had kept" in compared["why_not"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_run_that_is_killed_in_its_decode_goes_on(whole, fox, tmp_path, capsys) -> None:
    program = [sys.executable, "-c", KILLED, "run", *fox]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        child.send_signal(signal.SIGKILL)
        child.wait(30)
    record, _ = _record(capsys, fox)
    assert record["digest"] == whole
    assert record["resumed_from"]["stage"] == "decode"
    assert _names(tmp_path) == ["fox.png"]
