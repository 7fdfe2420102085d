"""Pipelines whose calls differ from the usual ones plan and run by the same commands, with the bare pipeline's bits."""

from __future__ import annotations

import json
import re
import wave
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

import roost
import tiny_unusual_pipelines as tiny
from live_pipelines import live_pipeline
from pipeline_cases import CASES, Case
from random_weights import fill_with_random_weights
from roost.api.models.inspect import profile_of
from roost.cli.app import run
from roost.facts.stage import StageKey
from roost.planner.rules.names import kind_of
from roost.planner.rules.roles import role_of
from roost.residency.engine.eviction import Activations
from roost.residency.run.calls import accepts
from roost.residency.run.generate import tensor_digest
from tiny_models import FAMILIES
from tiny_picture_pipelines import BUILDERS

ROOT = Path(__file__).parents[1]
STEPS = 2
EMULATED = ("--gpu", "emulated", "--vram", "2GiB", "--dtype", "fp32", "--steps", str(STEPS), "--no-measured")


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


def _bare_digest(pipeline: DiffusionPipeline, case: Case, model: Path, picture: Path) -> str:
    call = case.arguments
    profile = profile_of(roost.inspect_model(model))
    if profile.workload.guidance is not None and accepts(type(pipeline), profile.guidance_argument):
        call[profile.guidance_argument] = profile.workload.guidance
    for name in case.pictures:
        call[name] = Image.open(picture).convert("L" if name == "mask_image" else "RGB")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = torch.Generator("cpu").manual_seed(0)
        made = pipeline(**call, num_inference_steps=STEPS, generator=generator, output_type="pt")[0]
    if isinstance(made, numpy.ndarray):  # of pipelines that know no tensors as output
        made = torch.from_numpy(made).movedim(-1, 1)
    return tensor_digest(made if isinstance(made, torch.Tensor) else torch.stack(list(made)))


@pytest.mark.dealt(5)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if case.slow else name for name, case in CASES.items()]
)
def test_it_is_dry_run_and_runs_streamed_with_the_bits_of_the_bare_pipeline(
    name: str, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, model = CASES[name], tmp_path / "model"
    pipeline = _saved(case.make, model)
    assert type(pipeline).__name__ == name
    blocks = {each["name"]: each["blocks"] for each in _document(capsys, "inspect", model, "--json")["components"]}
    words = [f"--set={each}=layerwise-offload,resident_blocks=0" for each, stacks in blocks.items() if stacks]
    plan, output = tmp_path / "plan.yaml", tmp_path / f"made{case.suffix}"
    document = _document(capsys, "plan", model, *EMULATED, *case.planned, *words, "-o", plan, "--json")
    assert document["trace"]["source"] == "dry-run"
    given = [
        *(["--prompt", case.prompt] if case.prompt else []),
        *(f"--image={each}={picture}" for each in case.pictures),
    ]
    record = _document(capsys, "run", plan, *given, "-o", output, "--json")
    assert record["digest"] == _bare_digest(pipeline, case, model, picture)
    assert record["output"] == [str(output)]
    assert {each["component"] for each in document["trace"]["uses"]} == {each["component"] for each in record["stages"]}


def test_the_table_of_pipelines_lists_exactly_those_that_are_run() -> None:
    listed = re.findall(r"^\| `(\w+Pipeline)` \| runs", (ROOT / "docs" / "pipelines.md").read_text(), re.MULTILINE)
    families = {type(live_pipeline(name)).__name__ for name in FAMILIES}
    assert sorted(listed) == sorted({*CASES, *BUILDERS, *families})


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


def test_a_setting_that_is_a_list_of_numbers_is_no_component(tmp_path: Path, capsys) -> None:
    model, plan = tmp_path / "model", tmp_path / "plan.yaml"
    _saved(tiny.ddpm, model)
    index = model / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "layers": [1, 2]}))
    assert run(["plan", str(model), *EMULATED, "-o", str(plan)]) == 0
    assert run(["run", str(plan)]) == 0
    assert "denoise" in capsys.readouterr().err


def test_what_encoding_took_says_nothing_of_what_decoding_takes() -> None:
    device: Any = SimpleNamespace(used_bytes=0, peak_bytes=0)
    activations, encodes = Activations(device, lambda: 0), StageKey("vae", "image_encode")
    for taken_bytes in (7, 5):
        activations.begin(encodes)
        device.peak_bytes = taken_bytes
        activations.end()
    assert activations.of(encodes) == 7
    assert activations.of(StageKey("vae", "decode")) is None


@pytest.mark.parametrize(
    ("name", "library", "class_name", "kind", "role"),
    [
        ("prior_prior", "diffusers", "StableCascadeUNet", "dit", "denoiser"),
        ("prior_text_encoder", "transformers", "CLIPTextModelWithProjection", "text_encoder", "encoder"),
        ("prior_image_encoder", "transformers", "CLIPVisionModelWithProjection", "image_encoder", "encoder"),
        ("decoder", "diffusers", "StableCascadeUNet", "dit", None),
        ("vqgan", "wuerstchen", "PaellaVQModel", "vae", None),
        ("language_model", "transformers", "GPT2LMHeadModel", "text_encoder", None),
        ("latent_upsampler", "diffusers", "LTXLatentUpsamplerModel", "vae", None),
        ("connectors", "ltx2", "LTX2TextConnectors", "other", "encoder"),
    ],
)
def test_components_of_rarer_pipelines_have_their_kind_and_role(name, library, class_name, kind, role) -> None:
    component = SimpleNamespace(name=name, library=library, class_name=class_name)
    assert (kind_of(component), role_of(name)) == (kind, role)


def test_sound_is_saved_at_its_own_rate_with_all_channels(tmp_path: Path) -> None:
    from roost.residency.media.outputs import save_outputs

    sound = torch.tensor([[[0.0, 1.0, -1.0], [0.5, 2.0, float("nan")]]])
    (path,) = save_outputs(sound, tmp_path / "fox.wav", samples_per_s=8000)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, 3)
        levels = torch.frombuffer(bytearray(file.readframes(3)), dtype=torch.int16)
    assert levels.tolist() == [0, 16384, 32767, 32767, -32767, 0]
