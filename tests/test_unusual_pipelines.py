"""Pipelines whose calls differ from the usual ones plan and run by the same commands, with the bare pipeline's bits."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

import tiny_unusual_pipelines as tiny
from random_weights import fill_with_random_weights
from roost.cli.app import run
from roost.residency.digests import tensor_digest

STEPS = 2
EMULATED = ("--gpu", "emulated", "--vram", "2GiB", "--dtype", "fp32", "--steps", str(STEPS), "--no-measured")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How to make a pipeline, the words of its commands, and the arguments of the same call in Python."""

    make: Callable[[], DiffusionPipeline]
    planned: tuple[str, ...] = ("--size", "64x64")
    prompt: str | None = "a fox"
    picture: bool = False
    call: dict[str, Any]
    suffix: str = ".png"


SIZE = {"width": 64, "height": 64}
CASES: dict[str, Case] = {
    "StableVideoDiffusionPipeline": Case(
        make=tiny.stable_video_diffusion,
        planned=("--size", "64x64", "--frames", "3"),
        prompt=None,
        picture=True,
        call={**SIZE, "num_frames": 3},
        suffix=".mp4",
    ),
    "LattePipeline": Case(
        make=tiny.latte,
        planned=("--size", "64x64", "--frames", "4"),
        call={**SIZE, "video_length": 4},
        suffix=".mp4",
    ),
    "StableAudioPipeline": Case(make=tiny.stable_audio, call={}, suffix=".wav"),
    "DDPMPipeline": Case(make=tiny.ddpm, prompt=None, call={}),
    "MarigoldDepthPipeline": Case(make=tiny.marigold_depth, prompt=None, picture=True, call={}),
    "PixArtSigmaPipeline": Case(
        make=tiny.pixart,
        planned=("--size", "256x256"),
        call={"width": 256, "height": 256, "guidance_scale": 4.5},
    ),
}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "start.png"
    Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 50).convert("RGB").save(path)
    return path


def _saved(make: Callable[[], DiffusionPipeline], directory: Path) -> DiffusionPipeline:
    torch.manual_seed(0)
    pipeline = make()
    fill_with_random_weights(pipeline.components)
    for each in pipeline.components.values():
        if isinstance(each, torch.nn.Module):
            each.eval()
    pipeline.save_pretrained(directory)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _document(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    code = run([str(word) for word in words])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


def _bare_digest(pipeline: DiffusionPipeline, case: Case, picture: Path) -> str:
    call = dict(case.call) | ({"prompt": case.prompt} if case.prompt else {})
    if case.picture:
        call["image"] = Image.open(picture).convert("RGB")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = torch.Generator("cpu").manual_seed(0)
        made = pipeline(**call, num_inference_steps=STEPS, generator=generator, output_type="pt")[0]
    return tensor_digest(made if isinstance(made, torch.Tensor) else torch.stack(list(made)))


@pytest.mark.parametrize("name", CASES)
def test_it_is_dry_run_and_runs_streamed_with_the_bits_of_the_bare_pipeline(
    name: str, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, model = CASES[name], tmp_path / "model"
    pipeline = _saved(case.make, model)
    blocks = {each["name"]: each["blocks"] for each in _document(capsys, "inspect", model, "--json")["components"]}
    words = [f"--set={each}=layerwise-offload,resident_blocks=0" for each, stacks in blocks.items() if stacks]
    plan, output = tmp_path / "plan.yaml", tmp_path / f"made{case.suffix}"
    document = _document(capsys, "plan", model, *EMULATED, *case.planned, *words, "-o", plan, "--json")
    assert document["trace"]["source"] == "dry-run"
    given = [*(["--prompt", case.prompt] if case.prompt else []), *(["--image", picture] if case.picture else [])]
    record = _document(capsys, "run", plan, *given, "-o", output, "--json")
    assert record["digest"] == _bare_digest(pipeline, case, picture)
    assert record["output"] == [str(output)]
    assert {each["component"] for each in document["trace"]["uses"]} == {each["component"] for each in record["stages"]}


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of the pipeline that takes numbers of classes."""
    folder = tmp_path_factory.mktemp("numbered")
    _saved(tiny.dit, folder / "model")
    plan = folder / "plan.yaml"
    assert run(["plan", str(folder / "model"), *EMULATED, "-o", str(plan)]) == 0
    return plan


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "needs 'class_labels', which no option gives; call the pipeline of roost.load_pipeline(plan)"),
        (("--prompt", "a fox"), "DiTPipeline takes no prompt; leave --prompt out."),
        (("--size", "64x64"), "--size: DiTPipeline has no parameter 'width'; leave --size out."),
    ],
)
def test_what_its_call_lacks_or_needs_is_one_line(numbered: Path, words: tuple[str, ...], said: str, capsys) -> None:
    capsys.readouterr()
    assert run(["run", str(numbered), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_pipeline_that_takes_a_prompt_still_asks_for_one_before_planning(tmp_path: Path, capsys) -> None:
    _saved(tiny.stable_audio, tmp_path / "model")
    capsys.readouterr()
    assert run(["run", str(tmp_path / "model"), *EMULATED[:4]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "give either --prompt TEXT or --prompts FILE" in line


def test_sound_is_saved_at_its_own_rate_with_all_channels(tmp_path: Path) -> None:
    from roost.residency.media import save_outputs

    sound = torch.tensor([[[0.0, 1.0, -1.0], [0.5, 2.0, float("nan")]]])
    (path,) = save_outputs(sound, tmp_path / "fox.wav", samples_per_s=8000)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, 3)
        levels = torch.frombuffer(bytearray(file.readframes(3)), dtype=torch.int16)
    assert levels.tolist() == [0, 16384, 32767, 32767, -32767, 0]
