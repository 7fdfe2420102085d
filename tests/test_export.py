"""``roost export``: a plan's placement in the words of SGLang and diffusers, and what they have none for."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import roost
from roost.api.plans.export.diffusers import diffusers_script
from roost.api.plans.export.sglang import sglang_command
from roost.cli.app import run
from roost.errors import UsageError
from roost.plan import PlanDocument, plan_to_yaml
from sglang_arguments import ARGUMENTS, POLICIES, RESIDENCY

CARD: Mapping[str, Any] = {"gpu": "a100-80gb", "ram": "256GiB", "policy": "rules"}
SETS = {
    "wan2.2-t2v-a14b": ["vae=resident,tiling=true", "dit=layerwise-offload,resident_blocks=10,prefetch=2"],
    "flux.1-dev": ["dit=layerwise-offload,resident_blocks=19,resident_policy=leading", "te=snapshot-offload"],
    "qwen-image": ["all=component-offload,linger=true"],
    "sdxl": ["all=resident"],
}


def planned(model: str, *sets: str, **options: Any) -> PlanDocument:
    return roost.make_plan(model, **CARD, set=[each.replace("te=", "text_encoder=") for each in sets], **options)


def arguments(text: str) -> dict[str, list[str]]:
    """The command's arguments with their values, as a shell splits them."""
    words = shlex.split(text.replace("\\\n", ""), comments=True)
    assert words[:2] == ["sglang", "generate"]
    found: dict[str, list[str]] = {}
    for word in words[2:]:
        if word.startswith("--"):
            assert word not in found
            found[word] = []
        else:
            found[list(found)[-1]].append(word)
    return found


@pytest.mark.parametrize("model", SETS)
def test_sglang_is_given_arguments_that_it_has(model: str) -> None:
    found = arguments(sglang_command(planned(model, *SETS[model])).text)
    assert found.keys() <= ARGUMENTS
    placed = dict(each.split("=") for each in found["--component-residency"])
    assert set(placed.values()) <= set(RESIDENCY)
    for flag in ("--layerwise-prefetch-size", "--layerwise-resident-layers", "--layerwise-residency-policy"):
        pairs = dict(each.split("=") for value in found.get(flag, []) for each in value.split(","))
        assert all(placed[name] == "layerwise-offload" for name in pairs)
        assert flag != "--layerwise-residency-policy" or set(pairs.values()) <= set(POLICIES)


def test_sglang_is_told_each_components_place_and_the_workload() -> None:
    found = arguments(sglang_command(planned("wan2.2-t2v-a14b", *SETS["wan2.2-t2v-a14b"])).text)
    assert found["--model-path"] == ["Wan-AI/Wan2.2-T2V-A14B-Diffusers"]
    assert set(found["--component-residency"]) == {
        "transformer=layerwise-offload", "transformer_2=layerwise-offload", "text_encoder=layerwise-offload",
        "vae=resident",
    }  # fmt: skip
    assert set(found["--layerwise-resident-layers"][0].split(",")) == {"transformer=10", "transformer_2=10"}
    assert "transformer=2" in found["--layerwise-prefetch-size"][0].split(",")
    assert (found["--vae-tiling"], found["--num-frames"], found["--width"]) == (["true"], ["81"], ["1280"])


def test_blocks_of_several_stacks_stay_as_a_share_in_sglang() -> None:
    exported = sglang_command(planned("flux.1-dev", *SETS["flux.1-dev"]))
    assert arguments(exported.text)["--layerwise-resident-layers"] == ["transformer=0.333"]
    assert any(each.startswith("transformer: 19 of 57 blocks stay by the plan") for each in exported.notes)


def test_sharding_is_sglangs_and_no_scripts() -> None:
    plan = planned("wan2.2-t2v-a14b", fsdp=True, num_gpus=2)
    found = arguments(sglang_command(plan).text)
    assert (found["--use-fsdp-inference"], found["--num-gpus"]) == (["true"], ["2"])
    assert not any(each.startswith("transformer") for each in found["--component-residency"])
    with pytest.raises(UsageError, match="shards transformer, transformer_2 with FSDP"):
        diffusers_script(plan)


def test_what_a_target_can_not_say_is_one_line_each() -> None:
    plan = planned("wan2.2-t2v-a14b", *SETS["wan2.2-t2v-a14b"], "text_encoder=snapshot-offload,linger=true")
    for exported in (sglang_command(plan), diffusers_script(plan)):
        assert [each for each in exported.notes if each.startswith("text_encoder: ")] == [
            "text_encoder: its weights are copied back to the host each time, which Roost spares.",
            "text_encoder: Roost would let it stay after its stage while there is room.",
        ]
        comments = [line.removeprefix("# note: ") for line in exported.text.splitlines() if line.startswith("# note: ")]
        assert comments == list(exported.notes)
    script = diffusers_script(plan).notes
    assert "transformer: Roost would fetch 2 blocks ahead; group offloading fetches one." in script
    assert "transformer: Roost would keep 10 of 40 blocks on the GPU; group offloading streams them all." in script


def test_a_script_says_each_components_dtype() -> None:
    text = diffusers_script(planned("wan2.2-t2v-a14b")).text
    assert 'torch_dtype={"vae": torch.float32, "default": torch.bfloat16}' in text


def test_plans_that_no_target_takes_are_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned("sdxl")
    live = plan.model_copy(update={"model": plan.model.model_copy(update={"source": "memory"})})
    for made, said in (
        (planned("wan2.2-t2v-a14b", role="encoder"), "this plan is for the role encoder"),
        (live, "this plan was made of a StableDiffusionXLPipeline in memory; say where that model is with --model DIR"),
    ):
        (tmp_path / "plan.yaml").write_text(plan_to_yaml(made))
        for target in ("sglang", "diffusers"):
            assert run(["export", str(tmp_path / "plan.yaml"), "--to", target]) == 2
            out, err = capsys.readouterr()
            assert (out, err.count("\n")) == ("", 1)
            assert err.startswith(f"error: {said}")
    assert run(["export", str(tmp_path / "plan.yaml"), "--to", "sglang", "--model", "my dir"]) == 0
    assert arguments(capsys.readouterr().out)["--model-path"] == ["my dir"]
    assert run(["export", str(tmp_path / "plan.yaml"), "--to", "comfy"]) == 2
    assert "choose one of sglang, diffusers" in capsys.readouterr().err


@pytest.mark.parametrize("target", [sglang_command, diffusers_script])
def test_names_of_a_plan_never_become_commands(target: Any) -> None:
    plan = planned("sdxl")
    named = plan.model_copy(update={"model": plan.model.model_copy(update={"pipeline": "X\ntouch owned"})})
    with pytest.raises(UsageError, match="is no name of a pipeline class"):
        target(named)


def test_a_component_that_python_can_not_name_has_no_script() -> None:
    plan = planned("sdxl")
    parts = {("vae; x" if name == "vae" else name): each for name, each in plan.components.items()}
    with pytest.raises(UsageError, match="component 'vae; x' has no name"):
        diffusers_script(plan.model_copy(update={"components": parts, "load_order": list(parts)}))


def test_the_command_writes_a_file_and_says_notes_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned("sdxl", "unet=snapshot-offload")
    (tmp_path / "plan.yaml").write_text(plan_to_yaml(plan))
    target = tmp_path / "new" / "place.py"
    assert run(["export", str(tmp_path / "plan.yaml"), "--to", "diffusers", "-o", str(target)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("note: unet: its weights are copied back")
    assert target.read_text() == diffusers_script(plan).text
    assert run(["export", str(tmp_path / "plan.yaml"), "--to", "diffusers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == diffusers_script(plan).text
