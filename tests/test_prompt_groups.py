"""Prompts that share a call: the bits of diffusers' own list, what an interruption leaves, which group is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from dry_runs import tiny_directory
from live_pipelines import held_by, live_pipeline, own_pipeline
from plans import LAYERWISE, plan_for
from roost.api.plans.plan_files import load_plan
from roost.api.requests.request import RunRequest, calls_of
from roost.api.runs import groups
from roost.api.runs import run as running
from roost.api.runs.identity import generation_key
from roost.cli.app import run
from roost.errors import UsageError
from roost.pipelines.calls import GenerationRequest
from roost.residency.run.calls import check_takes_groups
from roost.residency.run.generate import generate, tensor_digest
from tiny_models import default_call
from traces import trace, use
from worlds import component

EMULATED = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0")
SMALL = ("--size", "64x64", "--steps", "2")
PROMPTS = ("a fox", "a goose", "a hare")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("groups") / "plan.yaml"
    words = (*EMULATED, *SMALL, "--policy", "rules", "--batch", "2", "--dtype", "float32")
    assert run(["plan", str(tiny_directory("sdxl")), *words, "-o", str(path)]) == 0
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS), encoding="utf-8")
    return path


def _record(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["run", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["flux", "sdxl", "wan2.1"])
def test_a_group_has_the_bits_of_diffusers_own_list(name: str) -> None:
    call = default_call(name) | {"output_type": "pt"}
    del call["prompt"]
    more = {"negative_prompt": ["rain", "rain"]} if name == "sdxl" else {}
    plain = live_pipeline(name)(
        prompt=["a fox", "a goose"],
        generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)],
        **call,
        **more,
    )[0]
    request = GenerationRequest(
        prompt="a fox",
        seed=3,
        negative_prompt="rain" if more else None,
        group=(("a fox", 3), ("a goose", 4)),
        more={key: value for key, value in call.items() if key != "output_type"},
    )
    pipeline = own_pipeline(name)
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        assert generate(held, request).digest == tensor_digest(plain)


def test_groups_go_by_place_over_prompts_and_their_seeds(tmp_path: Path) -> None:
    request = RunRequest(prompts=PROMPTS, listed=True, seeds=(7, 8), group=4, output=tmp_path / "out.png")
    first, rest = calls_of(request)
    assert [(each.prompt, each.seed) for each in first] == [("a fox", 7), ("a fox", 8), ("a goose", 7), ("a goose", 8)]
    assert [each.output.name for each in rest if each.output] == ["out-0003-seed7.png", "out-0003-seed8.png"]
    assert [each.batch_of for each in (*first, *rest)] == [4, 4, 4, 4, 2, 2]
    alone = replace(first[0], group=())  # other bits: neither counts as the other
    assert generation_key({}, alone) != generation_key({}, first[0]) != generation_key({}, replace(rest[0], group=()))


def test_each_text_of_a_group_counts_in_the_encoders() -> None:
    encoder, denoiser = component("text_encoder", 800, blocks=4), component("transformer", 800, blocks=4)
    traced = trace((use(encoder, 40, activation_bytes=5), 1), (use(denoiser, 80, activation_bytes=7), 4))
    encoded, denoised = groups._with_texts(traced, {"text_encoder"}, 4).uses
    assert (encoded.flops, encoded.activation_bytes.peak_bytes) == (160, 20)
    assert {(each.totals["matmul"].flops, each.activation_bytes) for each in encoded.blocks} == {(40, 20)}
    assert denoised == traced.uses[1]


@pytest.mark.dealt(2)
def test_a_stopped_group_is_made_again_whole_and_only_what_lacks_is_saved(
    plan, prompts, tmp_path, capsys, monkeypatch
) -> None:
    words = [str(plan), "--prompts", str(prompts), "--batch", "2", "--seed", "5", "-o", str(tmp_path / "out.png")]
    whole = _record(capsys, *words[:-1], str(tmp_path / "whole.png"))
    plain = live_pipeline("sdxl")(
        prompt=["a fox", "a goose"], generator=[torch.Generator().manual_seed(5) for _ in range(2)],
        height=64, width=64, num_inference_steps=2, output_type="pt",
    )[0]  # fmt: skip
    assert [each["digest"] for each in whole["generations"][:2]] == [tensor_digest(plain[:1]), tensor_digest(plain[1:])]
    assert [each["batch_of"] for each in whole["generations"]] == [2, 2, 1]
    assert whole["texts"]["encoded_ahead"] is True
    assert any("groups of 2" in each for each in whole["warnings"])
    first, second, alone = whole["generations"]
    assert (bool(first["stages"]), second["stages"], bool(alone["stages"])) == (True, [], True)
    assert whole["seconds"] == pytest.approx(2 * first["seconds"] + alone["seconds"] + whole["texts"]["seconds"])

    save, saved = running.save_generation, list[Path]()

    def save_one(*given: Any) -> list[str]:
        if saved:
            raise KeyboardInterrupt
        saved.append(given[-1])
        return save(*given)

    with monkeypatch.context() as patched:
        patched.setattr(running, "save_generation", save_one)
        assert run(["run", *words]) == 130
    there = (tmp_path / "out-0001.png").stat().st_mtime_ns
    gone_on = _record(capsys, *words)
    assert [each["skipped"] for each in gone_on["generations"]] == [True, False, False]
    assert [each["digest"] for each in gone_on["generations"]] == [each["digest"] for each in whole["generations"]]
    assert gone_on["resumed_from"]["stage"] == "decode"  # the group keeps as one
    assert (tmp_path / "out-0001.png").stat().st_mtime_ns == there
    assert all(each["skipped"] for each in _record(capsys, *words)["generations"])
    assert not [*tmp_path.glob("*.safetensors")]


@pytest.mark.parametrize(
    ("seconds", "size", "too_large"),
    [({1: 3.0, 2: 2.0, 4: 2.0}, 4, 8), ({1: 3.0, 2: 2.0, 4: 2.5, 8: 2.6}, 2, None), ({}, 1, 1)],
)
def test_auto_takes_what_surely_fits_with_the_fewest_seconds_an_output(
    seconds: dict[int, float], size: int, too_large: int | None, plan, monkeypatch
) -> None:
    monkeypatch.setattr(groups, "_output_s", lambda _plan, workload, _model: seconds.get(workload.batch))
    choice = groups.group_for_plan(load_plan(plan), RunRequest(prompts=("a fox",) * 9, listed=True), None)
    assert (choice.size, choice.too_large) == (size, too_large)


@pytest.mark.slow
def test_auto_predicts_each_group_of_a_model_and_of_its_plan(prompts, tmp_path, capsys) -> None:
    words = ("--prompts", str(prompts), "--batch", "auto", "--dry-run", "--json")
    model = str(tiny_directory("flux"))
    assert run(["run", model, *EMULATED, *SMALL, *words]) == 0
    captured = capsys.readouterr()
    generations = json.loads(captured.out)["generations"]
    planned = load_plan(captured.err.split("kept at ")[1].strip())
    choice = groups.group_for_plan(planned, RunRequest(prompts=PROMPTS, listed=True), None)
    assert choice.size == min(choice.output_s, key=lambda size: (choice.output_s[size], -size))
    assert [*choice.output_s] == [1, 2]
    assert generations[0]["batch_of"] == planned.workload.batch
    assert captured.err.count("--batch auto: ") == 1

    single = tmp_path / "single.yaml"
    assert run(["plan", model, *EMULATED, *SMALL, "-o", str(single)]) == 0
    assert load_plan(single).workload.batch == 1
    capsys.readouterr()
    assert run(["run", str(single), *words]) == 0  # foreseen to fit, so the plan's own batch is no limit
    assert json.loads(capsys.readouterr().out)["workload"]["batch"] == choice.size


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--batch", "auto"), 2, "predictions"),  # by the rules
        (("--batch", "3"), 4, "--batch: more than this plan is for"),
        (("--batch", "0"), 2, "--batch 0"),
        (("--batch", "many"), 2, "--batch 'many'"),
    ],
)
def test_a_group_that_can_t_be_is_refused_in_one_line(words, code: int, said: str, plan, prompts, capsys) -> None:
    assert run(["run", str(plan), "--prompts", str(prompts), *words]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_only_prompts_files_have_groups_to_choose(plan, capsys) -> None:
    for words in (["run", str(plan), "--prompt", "a fox"], ["plan", "flux.1-dev", "--gpu", "h200"]):
        assert run([*words, "--batch", "auto"]) == 2
        assert "--batch auto" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "lacking"),
    [("ErnieImagePipeline", "generator"), ("SanaWMPipeline", "prompt"), ("AmusedPipeline", "generator")],
)
def test_a_pipeline_that_takes_no_lists_is_refused(name: str, lacking: str) -> None:
    with pytest.raises(UsageError, match=f"takes no list as '{lacking}'"):
        check_takes_groups(getattr(diffusers, name))
    check_takes_groups(diffusers.WanPipeline)
