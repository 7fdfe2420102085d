"""The strength of what starts from a picture or video: which steps run, what a plan allows, and what is refused."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
from PIL import Image

import roost
from roost.api.models.inspect import inspect_model
from roost.cli.app import run
from roost.errors import UsageError
from roost.facts.request import Workload
from roost.planner.cost.untraced import untraced
from roost.probes.dry_run import DryRunOptions, dry_run
from roost.profiles.class_facts import load_class_facts, load_pipeline_facts
from tiny_models import build
from tiny_picture_pipelines import BUILDERS as OF_PICTURES
from tiny_video_inputs import BUILDERS as OF_VIDEOS

EMULATED = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0", "--dtype", "float32", "--size", "64x64")
NAMES = ("FluxImg2ImgPipeline", "StableDiffusionXLImg2ImgPipeline", "WanVideoToVideoPipeline")
Made = Callable[[str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    builders = {**OF_PICTURES, **OF_VIDEOS}
    return functools.cache(lambda name: builders[name](tmp_path_factory.mktemp("strengths") / "model"))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "start.png"
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(path)
    return path


def _plan(model: Path, *words: object) -> Path:
    frames = ("--frames", "5") if "Video" in roost.inspect_model(model).pipeline else ()
    path = model.with_suffix(".yaml")
    assert run(["plan", str(model), *EMULATED, *frames, *map(str, words), "-o", str(path)]) == 0
    return path


def _record(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["run", *map(str, words), "--prompt", "a fox", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def _line(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> str:
    capsys.readouterr()
    assert run([str(each) for each in words]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def _denoiser_calls(model: Path, steps: int, strength: float | None) -> int:
    inventory = inspect_model(str(model), dtype="float32")
    workload = Workload(width=64, height=64, frames=5, steps=steps, batch=1, guidance=1.0, strength=strength)
    trace = dry_run(model, inventory, workload, load_class_facts(), DryRunOptions())
    return sum(use.component in ("transformer", "unet") for use in trace.ordered_uses())


@pytest.mark.dealt(3)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("steps", "strength", "ran"), [(10, 0.6, 6), (4, 1.0, 4)])
def test_a_dry_run_has_the_steps_that_the_strength_leaves(
    name: str, steps: int, strength: float, ran: int, made
) -> None:
    workload = Workload(width=64, height=64, frames=5, steps=steps, batch=1, guidance=1.0, strength=strength)
    assert workload.steps_run == ran
    assert _denoiser_calls(made(name), steps, strength) == ran


def test_without_a_dry_run_the_steps_that_run_are_counted_too(made) -> None:
    components = inspect_model(str(made("FluxImg2ImgPipeline")), dtype="float32").components
    workload = Workload(width=64, height=64, frames=None, steps=50, batch=1, guidance=None, strength=0.6)
    trace = untraced(components, workload, "for this test")
    assert sum(each.component == "transformer" for each in trace.ordered_uses()) == 30


def test_the_plan_says_the_strength_that_the_class_has_by_itself_or_that_was_typed(made, capsys) -> None:
    model = made("WanVideoToVideoPipeline")
    for words, strength, said in (((), 0.8, "8 of 10 steps (strength 0.8)"), (("--strength", 0.6), 0.6, "6 of 10")):
        capsys.readouterr()
        plan = roost.load_plan(_plan(model, "--steps", 10, *words))
        assert plan.workload.strength == strength
        assert said in capsys.readouterr().out


def test_a_step_s_seconds_do_not_depend_on_how_many_of_them_run(made) -> None:
    model = made("FluxImg2ImgPipeline")
    whole, half = (roost.load_plan(_plan(model, "--steps", 10, "--strength", each)).predicted for each in (1, 0.5))
    assert whole is not None
    assert half is not None
    assert half.step_s.mid == pytest.approx(whole.step_s.mid, rel=0.05)
    assert half.next_s.mid < whole.next_s.mid


@pytest.mark.slow
def test_a_run_takes_the_plan_s_strength_or_a_smaller_one(made, picture, capsys) -> None:
    plan = _plan(made("FluxImg2ImgPipeline"), "--steps", 4, "--strength", 0.75)
    runs = [
        _record(capsys, plan, "--image", picture, *words) for words in ((), ("--strength", 0.75), ("--strength", 0.5))
    ]
    digests = [each["digest"] for each in runs]
    assert digests[0] == digests[1] != digests[2]


def test_what_counts_against_the_plan_are_the_steps_that_run(made, picture, capsys) -> None:
    plan = _plan(made("FluxImg2ImgPipeline"), "--steps", 4, "--strength", 0.5)
    words = ("run", plan, "--prompt", "a fox", "--image", picture, "--dry-run")
    error = _line(capsys, 4, *words, "--strength", 1)
    assert error.startswith("error: --strength: more than this plan is for")
    assert "--steps 4 --strength 1" in error
    capsys.readouterr()
    assert run([*map(str, words), "--steps", "2", "--strength", "1"]) == 0
    assert "2 of 2 steps (strength 1)" in capsys.readouterr().out


def test_pipelines_without_a_strength_refuse_one(tmp_path, made, picture, capsys) -> None:
    flux = build("flux", tmp_path / "model")
    assert "FluxPipeline runs all its steps at any strength" in _line(
        capsys, 2, "plan", flux, *EMULATED, "--strength", 0.5
    )
    plan = _plan(flux, "--steps", 2)
    said = _line(capsys, 2, "run", plan, "--prompt", "a fox", "--strength", 0.5)
    assert "FluxPipeline has no parameter 'strength'" in said


def test_a_strength_that_only_says_how_much_of_a_frame_is_kept_is_none_of_the_plan_s_business(
    made, picture, capsys
) -> None:
    model = made("LTXConditionPipeline")
    assert "runs all its steps at any strength" in _line(capsys, 2, "plan", model, *EMULATED, "--strength", 0.5)
    plan = _plan(model, "--steps", 2, "--frames", 9)
    assert roost.load_plan(plan).workload.strength is None
    digests = {_record(capsys, plan, "--image", picture, "--strength", each)["digest"] for each in (1, 0.5)}
    assert len(digests) == 2


@pytest.mark.parametrize("strength", ["0", "-1", "1.5", "nan"])
def test_a_strength_out_of_range_is_one_line(strength: str, made, capsys) -> None:
    model = made("FluxImg2ImgPipeline")
    assert "out of range" in _line(capsys, 2, "plan", model, *EMULATED, "--strength", strength)


def test_a_strength_that_leaves_no_step_is_one_line(made, capsys) -> None:
    model = made("FluxImg2ImgPipeline")
    said = _line(capsys, 2, "plan", model, *EMULATED, "--steps", 4, "--strength", 0.2)
    assert "--strength 0.2 of 4 steps leaves none to run" in said


def test_python_takes_it_too(made) -> None:
    plan = roost.make_plan(
        made("FluxImg2ImgPipeline"), gpu="emulated", vram="2GiB", size="64x64", steps=10, strength=0.4
    )
    assert plan.workload.strength == 0.4
    with pytest.raises(UsageError, match="out of range"):
        roost.make_plan(made("FluxImg2ImgPipeline"), gpu="emulated", vram="2GiB", strength=2)


def test_the_strengths_are_those_of_the_signatures_and_leave_out_steps() -> None:
    known = {name: each.strength for name, each in load_pipeline_facts().items() if each.strength is not None}
    assert {"FluxImg2ImgPipeline", "WanVideoToVideoPipeline", "StableDiffusionXLInpaintPipeline"} <= known.keys()
    for name, strength in known.items():
        parameters = inspect.signature(getattr(diffusers, name).__call__).parameters
        assert parameters["strength"].default == strength
    assert not {"LTXConditionPipeline", "FluxPipeline"} & known.keys()
