"""Random weights make a model computable at its real size without its files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

import roost
from dry_runs import tiny_directory
from roost.api.models.inspect import inspect_model
from roost.pipelines.build import build_pipeline, random_component
from roost.pipelines.calls import GenerationRequest
from roost.plan import PlanDocument
from roost.profiles.class_facts import load_class_facts
from roost.residency.run.generate import tensor_digest
from roost.residency.run.loader import Source
from roost.residency.run.plain import Place, move_whole
from roost.residency.run.trial import TrialSetup, open_trial
from tiny_models import build, default_call


def modules_of(family: str, seed: int = 0) -> dict[str, torch.nn.Module]:
    directory, facts = tiny_directory(family), load_class_facts()
    return {
        each.name: random_component(each.name, each, directory, class_facts=facts, device="cpu", seed=seed)
        for each in inspect_model(directory).components
    }


def random_trial(plan: PlanDocument, model: Path, place: Place | None = None) -> str:
    """The digest of one generation with random weights under ``plan``, or by diffusers alone."""
    load = partial(random_component, class_facts=load_class_facts(), device="cpu")
    setup = TrialSetup(
        plan=plan,
        model_dir=model,
        device_kind="emulated",
        budget_bytes=64 * 2**20,
        source=Source(load=load),
        place=place,
    )
    call = default_call("wan2.2")
    with open_trial(setup) as trial:
        return trial.measure(GenerationRequest(prompt=call.pop("prompt"), more=call)).digest


def digests(modules: dict[str, torch.nn.Module]) -> dict[str, str]:
    return {
        f"{name}.{key}": tensor_digest(weight)
        for name, each in modules.items()
        for key, weight in each.state_dict().items()
    }


@pytest.mark.parametrize("family", ["wan2.2", "flux", "sdxl", "qwen-image"])
def test_a_pipeline_of_random_weights_computes_finite_pictures(family: str) -> None:
    pipeline = build_pipeline(tiny_directory(family), modules_of(family))
    with torch.no_grad():
        picture = pipeline(**default_call(family), output_type="pt")[0]
    picture = picture if isinstance(picture, torch.Tensor) else torch.stack(list(picture))
    assert picture.isfinite().all()
    assert picture.std() > 0


def test_equal_seeds_give_equal_weights_and_other_seeds_others() -> None:
    first, again, other = modules_of("wan2.2"), modules_of("wan2.2"), modules_of("wan2.2", seed=1)
    assert digests(first) == digests(again)
    changed = {name for name, digest in digests(first).items() if digest != digests(other)[name]}
    assert any(name.startswith("transformer.blocks.0.") for name in changed)


def test_experts_of_one_shape_have_weights_of_their_own() -> None:
    modules = modules_of("wan2.2")
    first, second = (modules[name].state_dict() for name in ("transformer", "transformer_2"))
    weight = "blocks.0.attn1.to_q.weight"
    assert first[weight].shape == second[weight].shape
    assert not torch.equal(first[weight], second[weight])


def test_a_trial_needs_no_weight_files_and_every_strategy_gives_the_same_bits(tmp_path: Path) -> None:
    model = build("wan2.2", tmp_path / "model")
    resident, streamed = (
        roost.make_plan(model, gpu="emulated", vram="64MiB", headroom="0", policy="rules", set=f"all={strategy}")
        for strategy in ("resident", "layerwise-offload")
    )
    for file in model.rglob("*.safetensors"):
        file.unlink()
    plain = random_trial(resident, model, place=move_whole)
    assert random_trial(resident, model) == random_trial(streamed, model) == plain
