"""What a plan says of weights on the device is what the runtime's buffers take, to the byte."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import roost
from given_folders import Saved
from roost.pipelines.calls import GenerationRequest
from roost.plan import PlanDocument
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.run.generate import generate
from roost.residency.run.loader import load_held
from tiny_models import FAMILIES, default_call

PLACED = ("all=snapshot-offload", "all=layerwise-offload,resident_blocks=1")


def same_workload(name: str) -> dict[str, Any]:
    """The family's small call, without what a plan's workload doesn't say."""
    said = ("width", "height", "num_frames", "num_inference_steps")
    return {key: value for key, value in default_call(name).items() if key in said}


def planned(name: str, directory: Path, choice: Any, **options: Any) -> PlanDocument:
    call = same_workload(name)
    frames = {"frames": call["num_frames"]} if "num_frames" in call else {}
    workload = {"size": f"{call['width']}x{call['height']}", "steps": call["num_inference_steps"], **frames}
    memory = {"gpu": "emulated", "vram": "1GiB", "headroom": "0GiB", "ram": "8GiB"}
    return roost.make_plan(directory, set=choice, **memory, **workload, **options)


# Either dtype for every other family, and both for all with --runslow.
AT_DTYPES = [
    pytest.param(name, dtype, marks=pytest.mark.slow if (number + position) % 2 else ())
    for number, name in enumerate(FAMILIES)
    for position, dtype in enumerate(("float32", "bfloat16"))
]


@pytest.mark.dealt(8)
@pytest.mark.parametrize(("name", "dtype"), AT_DTYPES)
def test_weights_take_the_bytes_that_the_plan_says(name: str, dtype: str, saved: Saved) -> None:
    for choice in PLACED:
        plan = planned(name, saved(name), choice, dtype=dtype)
        assert plan.budget.stages
        with EmulatedDevice(plan.budget.budget_bytes) as device, load_held(plan, saved(name), device) as held:
            for stage in plan.budget.stages:
                taken = {each: held.runtime.components[each].stage_bytes for each in stage.components}
                assert taken == stage.components, choice


CHOICES: dict[str, Any] = {
    "resident": "all=resident",
    "snapshot-offload": "all=snapshot-offload",
    # Blocks of a VAE may be used outside their forward, which nobody knows before.
    "layerwise-offload": ("all=layerwise-offload,resident_blocks=1", "vae=snapshot-offload"),
}


# One strategy for every family in turn, and all of them with --runslow.
IN_TURN = [
    pytest.param(name, choice, marks=() if number % len(CHOICES) == position else pytest.mark.slow)
    for number, name in enumerate(FAMILIES)
    for position, choice in enumerate(CHOICES)
]


@pytest.mark.dealt(3)
@pytest.mark.parametrize(("name", "strategy"), IN_TURN)
def test_a_budget_of_the_predicted_peak_is_enough(name: str, strategy: str, saved: Saved) -> None:
    plan = planned(name, saved(name), CHOICES[strategy], dtype="float32")
    assert plan.predicted is not None
    peak = plan.predicted.peak_bytes
    device = EmulatedDevice(peak.high, count_activations=True)
    request = GenerationRequest(prompt="a red fox", more=same_workload(name))
    with torch.no_grad(), device, load_held(plan, saved(name), device) as held:
        peak_bytes = generate(held, request).peak_bytes
        assert held.changes == []
    assert peak_bytes <= peak.high
    if strategy == "resident":  # others may find less on the device than the simulation keeps there
        assert peak_bytes >= peak.low


@pytest.mark.dealt(2)
@pytest.mark.parametrize("strategy", ["resident", "snapshot-offload"])
def test_a_vae_that_is_raised_to_float32_for_its_decode_takes_the_predicted_bytes(
    strategy: str, saved: Saved, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(saved("sdxl"), tmp_path / "sdxl"))
    config = directory / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "force_upcast": True}))
    plan = planned("sdxl", directory, f"all={strategy}", dtype="float16")
    assert plan.predicted is not None
    foreseen = {stage.component: stage.peak_bytes for stage in plan.predicted.stages}
    device = EmulatedDevice(plan.predicted.peak_bytes.high, count_activations=True)
    request = GenerationRequest(prompt="a red fox", more=same_workload("sdxl"))
    with torch.no_grad(), device, load_held(plan, directory, device) as held:
        peaks = {stage.component: stage.peak_bytes for stage in generate(held, request).stages}
        assert held.changes == []
    assert peaks["vae"] == pytest.approx(foreseen["vae"], abs=16 * 1024)  # gaps, and the last latents beside it
