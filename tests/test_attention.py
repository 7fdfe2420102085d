"""``--attention``: a denoiser's backend is checked early, recorded in the plan, and the same bits in every strategy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend

import roost
from live_pipelines import STRATEGIES, held_by, own_pipeline, request_for, state_of
from plans import plan_for
from roost.api.plans.diff import diff_plans
from roost.api.plans.export.diffusers import diffusers_script
from roost.api.plans.export.sglang import sglang_command
from roost.cli.app import run
from roost.errors import UsageError
from roost.pipelines.attention import check_backend
from roost.plan import plan_to_yaml, read_plan
from roost.plan.revision import revised
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.run.generate import generate, tensor_digest
from roost.residency.run.plain import load_plain
from tiny_models import build, default_call
from toy_pipelines import ToyModel

MATH = "_native_math"
CALL = default_call("flux")
PLANNED = (
    "--gpu",
    "emulated",
    "--vram",
    "64MiB",
    "--headroom",
    "0",
    "--policy",
    "rules",
    "--size",
    "64x64",
    "--steps",
    "2",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("flux", tmp_path_factory.mktemp("attention") / "model")


def backends_of(transformer: Any) -> set[Any]:
    return {each.processor._attention_backend for each in transformer.modules() if hasattr(each, "processor")}


def test_every_strategy_gives_the_bits_of_the_pipeline_with_that_backend() -> None:
    alone = own_pipeline("flux")
    with attention_backend(MATH):
        alone.transformer.set_attention_backend(MATH)
        call = {**request_for("flux").more, "generator": torch.Generator("cpu").manual_seed(0), "output_type": "pt"}
        with torch.no_grad():
            right = tensor_digest(alone(prompt="a fox", **call).images)
    for strategy in STRATEGIES.values():
        pipeline = own_pipeline("flux")
        with held_by(pipeline, revised(plan_for(pipeline, strategy), attention=MATH)) as held:
            assert backends_of(pipeline.transformer) == {AttentionBackendName(MATH)}
            assert generate(held, request_for("flux")).digest == right


def test_a_pipeline_has_its_own_backends_again_when_the_plan_is_off() -> None:
    pipeline = own_pipeline("flux")
    first, *others = [each.processor for each in pipeline.transformer.modules() if hasattr(each, "processor")]
    first._attention_backend = AttentionBackendName.NATIVE
    before = state_of(pipeline)
    held_by(pipeline, revised(plan_for(pipeline), attention=MATH)).close()
    assert state_of(pipeline) == before
    assert first._attention_backend == AttentionBackendName.NATIVE
    assert {each._attention_backend for each in others} == {None}


def test_what_trials_compare_with_has_the_backend_too(model: Path) -> None:
    plan = roost.make_plan(model, gpu="emulated", vram="64MiB", headroom=0, policy="rules", attention=MATH)
    with attention_backend("native"):  # afterwards this process has its own again
        pipeline = load_plain(plan, model, EmulatedDevice(2**30))
    assert backends_of(pipeline.transformer) == {AttentionBackendName(MATH)}


def test_the_plan_records_it_and_the_run_says_it(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.yaml"
    assert run(["plan", str(model), *PLANNED, "--attention", MATH, "-o", str(path)]) == 0
    assert f"attention {MATH}" in capsys.readouterr().out
    assert read_plan(path).attention == MATH
    said = []
    for words in ((), ("--attention", "native")):
        assert run(["run", str(path), "--prompt", "a fox", "--json", *words]) == 0
        said.append(json.loads(capsys.readouterr().out)["attention"])
    assert said == [MATH, "native"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fast", "--attention 'fast' is not known; choose one of flash, "),
        ("flash_hub", "--attention 'flash_hub' downloads its kernel, which Roost never does"),
        ("sage", "--attention sage can't be used here: "),
    ],
)
def test_a_backend_that_can_not_be_had_is_one_line(
    name: str, said: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.yaml"
    assert run(["plan", str(model), *PLANNED, "-o", str(path)]) == 0
    capsys.readouterr()
    assert run(["run", str(path), "--prompt", "a fox", "--attention", name]) == 2
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[-1][: len(said) + 7]) == ("", f"error: {said}")


def test_unknown_names_are_refused_before_planning_and_benches(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"^attention='fast' is not known"):
        roost.make_plan(model, gpu="emulated", vram="64MiB", attention="fast")
    assert run(["bench", str(model), "--gpu", "emulated", "--vram", "64MiB", "--attention", "fast"]) == 2
    assert "--attention 'fast' is not known" in capsys.readouterr().err


def test_a_denoiser_that_takes_no_backend_is_named() -> None:
    check_backend("native", "transformer", FluxTransformer2DModel)
    with pytest.raises(UsageError, match=r"'painter' is a ToyModel, which has no set_attention_backend"):
        check_backend("native", "painter", ToyModel)


def test_plans_without_the_key_are_read_and_differences_and_exports_say_it(tmp_path: Path) -> None:
    plain = roost.make_plan("sdxl", gpu="rtx-4090", ram="64GiB", policy="rules")
    old = "".join(line for line in plan_to_yaml(plain).splitlines(keepends=True) if not line.startswith("attention:"))
    (tmp_path / "old.yaml").write_text(old)
    assert read_plan(tmp_path / "old.yaml").attention is None
    named = revised(plain, attention=MATH)
    (difference,) = [each for each in diff_plans(plain, named).decisions if each.what == "attention"]
    assert (difference.before, difference.after) == (None, MATH)
    assert f"pipe.unet.set_attention_backend('{MATH}')" in diffusers_script(named).text
    assert any(each.startswith(f"attention by diffusers' '{MATH}'") for each in sglang_command(named).notes)
