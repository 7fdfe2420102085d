"""Workers that each have a part of a pipeline make what one process makes, bit by bit, whatever it calls when."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from fleet_cases import FLEET_CASES, LAYOUTS, fleet_plan, model_of, one_plan
from given_files_matrix import FORMATS, made_world
from in_process_workers import InProcess, run_in_process
from roost.api.runs.ready import check_plan
from roost.api.runs.run import run_plan
from roost.cli.app import run
from running_fleets import World, made
from tiny_loras import lora_file

# One for each way that a pipeline goes through workers; all others show nothing new.
TYPICAL = {
    ("sdxl", "three"),
    ("flux", "two"),
    ("wan2.2", "shared"),
    ("qwen-image", "three"),
    ("ltx", "two"),
    ("WanImageToVideoPipeline", "three"),
    ("FluxFillPipeline", "two"),
    ("StableDiffusionControlNetPipeline", "three"),
    ("KandinskyV22CombinedPipeline", "two"),
    ("LTX2Pipeline", "three"),
    ("IFPipeline", "two"),
}
NOT_IN_ROLES = {("DDPMPipeline", layout) for layout in LAYOUTS} | {("IFPipeline", "three")}
NEEDS_TORCHVISION = "QwenImageEditPipeline"


def _cases() -> list[Any]:
    return [
        pytest.param(name, layout, marks=() if (name, layout) in TYPICAL else pytest.mark.slow)
        for name in FLEET_CASES
        for layout in LAYOUTS
        if (name, layout) not in NOT_IN_ROLES and name != NEEDS_TORCHVISION
    ]


@pytest.mark.parametrize(("name", "layout"), _cases())
def test_a_fleet_makes_what_one_process_makes(name, layout, tmp_path) -> None:
    world = World(tmp_path, name)
    alone, fleet = world.alone(), world.fleet(layout)
    assert made(fleet) == made(alone)
    assert {(each.component, each.phase) for each in fleet.stages} >= {
        (each.component, each.phase) for each in alone.stages
    }
    assert world.notes == []
    plan = world.planned(layout)
    assert {name for each in plan.workers for name in each.components} == set(
        one_plan(world.model, world.case).components
    )
    assert sum(each.requests for each in fleet.workers) == len(world.visits)


@pytest.mark.slow
def test_a_fleet_edits_pictures_by_what_its_encoder_sees(tmp_path) -> None:
    pytest.importorskip("torchvision")
    world = World(tmp_path, NEEDS_TORCHVISION)
    assert made(world.fleet("three")) == made(world.alone())


@pytest.mark.parametrize(("name", "layout"), [("DDPMPipeline", "two"), ("IFPipeline", "three")])
def test_a_role_that_a_model_has_nothing_for_is_one_line(name, layout, capsys) -> None:
    case, (cards, asked) = FLEET_CASES[name], LAYOUTS[layout]
    words = [
        "plan",
        str(model_of(name)),
        *case.planned,
        "--steps",
        "2",
        "--fleet",
        f"{cards} x emulated",
        "--vram",
        "64MiB",
    ]
    capsys.readouterr()
    assert run([*words, "--layout", asked]) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: --layout {asked} can't be: the model has no component for the role ")
    assert (
        run(["plan", str(model_of(name)), "--gpu", "emulated", "--vram", "64MiB", "--steps", "2", "--role", "decoder"])
        == 2
    )
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: --role decoder: the model has no component for")


# What changes from one request to the next.


@pytest.mark.parametrize("layout", [pytest.param("two", marks=pytest.mark.slow), "three"])
def test_a_pipeline_that_converts_its_vae_to_decode_finds_it_as_it_was_at_the_next_request(layout, tmp_path) -> None:
    world = World(tmp_path, "sdxl", "--dtype", "fp16")
    wanted = {"seeds": (1, 2), "steps": 1}
    assert made(world.fleet(layout, **wanted)) == made(world.alone(**wanted))


@pytest.mark.parametrize("name", ["MarigoldDepthPipeline", pytest.param("LTX2Pipeline", marks=pytest.mark.slow)])
def test_what_a_pipeline_remembers_of_one_request_is_not_needed_for_the_next(name, tmp_path) -> None:
    world = World(tmp_path, name)
    assert made(world.fleet("three", seeds=(1, 2))) == made(world.alone(seeds=(1, 2)))


def test_only_the_first_request_is_denoised_twice_where_what_follows_needs_several_calls(tmp_path) -> None:
    world = World(tmp_path, "LTX2Pipeline")
    world.fleet("two", prompts=("a", "b", "c", "d"), listed=True, steps=1)
    assert world.visits.count("denoiser-1") <= 6  # of the two under way at first, both
    assert {component for _, component in world.pools[-1].answered} == {"vae", "audio_vae", "vocoder"}


def test_seeds_and_listed_prompts_come_in_their_order(tmp_path) -> None:
    world = World(tmp_path, "flux")
    wanted = {"prompts": ("a fox", "two owls"), "listed": True, "seeds": (3, 4)}
    fleet = world.fleet("three", **wanted)
    assert made(fleet) == made(world.alone(**wanted))
    assert [(each.prompt, each.seed) for each in fleet.generations] == [
        (prompt, seed) for prompt in ("a fox", "two owls") for seed in (3, 4)
    ]
    assert [Path(path).name for each in fleet.generations for path in each.output] == [
        f"fleet-000{number}-seed{seed}.png" for number in (1, 2) for seed in (3, 4)
    ]


def test_prompts_that_share_a_call_share_it_in_a_fleet(tmp_path) -> None:
    world = World(tmp_path, "flux", "--batch", "2")
    wanted = {"prompts": ("a", "b", "c"), "listed": True, "group": 2}
    fleet = world.fleet("three", **wanted)
    assert made(fleet) == made(world.alone(**wanted))
    assert [each.batch_of for each in fleet.generations] == [2, 2, 1]
    assert len(world.visits) == 2 * 3


def test_latents_end_where_they_are_denoised(tmp_path) -> None:
    world = World(tmp_path, "flux")
    paths = [tmp_path / f"{name}.safetensors" for name in ("alone", "fleet")]
    wanted = {"output_type": "latent"}
    alone = run_plan(
        check_plan(one_plan(world.model, world.case)), world.case.request(tmp_path, **wanted, output=paths[0])
    )
    fleet = world.fleet("three", **wanted, output=paths[1])
    assert fleet.digest == alone.digest
    assert world.visits == ["encoder-1", "denoiser-1"]
    one, other = (load_file(path)["latents"] for path in paths)
    assert torch.equal(one, other)


STRATEGIES = (
    "--set",
    "dit=layerwise-offload",
    "--set",
    "text_encoder=component-offload",
    "--set",
    "vae=snapshot-offload",
)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flux", STRATEGIES),
        pytest.param("sdxl", STRATEGIES, marks=pytest.mark.slow),
        pytest.param("wan2.2", STRATEGIES, marks=pytest.mark.slow),
        pytest.param("flux", ("--cache", "fbcache"), marks=pytest.mark.slow),
        pytest.param("sdxl", ("--set", "vae=resident,tiling=true"), marks=pytest.mark.slow),
        pytest.param("wan2.2", ("--dtype", "bf16"), marks=pytest.mark.slow),
    ],
)
def test_each_worker_s_plan_is_carried_out(name, words, tmp_path) -> None:
    world = World(tmp_path, name, *words)
    fleet = world.fleet("three", seeds=(1, 2))
    assert made(fleet) == made(world.alone(seeds=(1, 2)))
    assert all(each.peak_bytes > 0 for each in fleet.workers)


@pytest.mark.parametrize("more", [(), pytest.param(("--no-fuse",), marks=pytest.mark.slow)])
def test_a_lora_of_components_on_several_workers_goes_into_each(more, tmp_path) -> None:
    pytest.importorskip("peft")
    layers = {"unet": ("to_q", "to_k"), "text_encoder": ("q_proj", "v_proj")}
    lora = lora_file(tmp_path / "lora.safetensors", DiffusionPipeline.from_pretrained(model_of("sdxl")), layers)
    world = World(tmp_path, "sdxl", "--lora", str(lora), *more)
    fleet, alone = world.fleet("three"), world.alone()
    assert made(fleet) == made(alone)
    (there,), (here,) = fleet.loras, alone.loras
    assert replace(there, components=here.components) == here
    assert {*there.components} == {*here.components} == {*layers}
    assert made(fleet)[0][2] != World(tmp_path, "sdxl").alone().digest


@pytest.mark.slow
@pytest.mark.parametrize("form", ["GGUF Q8_0", "Comfy fp8 scaled, new"])
def test_a_denoiser_of_a_quantised_file_is_away_like_any_other(form, tmp_path) -> None:
    pytest.importorskip("gguf")
    base = made_world("sdxl", tmp_path / "model")
    file = FORMATS[form](base, "sdxl", tmp_path)
    world = World(tmp_path, "sdxl", "--file", f"unet={file}", "--dtype", "fp32", model=tmp_path / "model")
    assert made(world.fleet("three")) == made(world.alone())


def test_a_card_that_holds_the_encoders_or_the_denoiser_and_not_both_serves_a_fleet(tmp_path) -> None:
    model, case = model_of("sdxl"), FLEET_CASES["sdxl"]
    sizes = {name: each.load_bytes for name, each in one_plan(model, case).components.items()}
    vram = 1700 * 1024
    assert sizes["unet"] < vram < sum(sizes.values())
    plan = fleet_plan(model, case, "three", vram="1700KiB")
    assert {each.strategy for worker in plan.workers for each in worker.components.values()} == {"resident"}
    found = run_in_process(plan, case.request(tmp_path, "fleet"), lambda: InProcess(plan, tmp_path), [])
    assert found.digest == World(tmp_path).alone().digest
    assert all(each.peak_bytes <= vram for each in found.workers)
