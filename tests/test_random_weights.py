"""Random weights make a model computable at its real size without its files."""

from __future__ import annotations

import pytest
import torch

from dry_runs import tiny_directory
from roost.api.inspection import inspect_model
from roost.pipelines.from_configs import build_pipeline
from roost.pipelines.random_weights import random_component
from roost.profiles.classes import load_class_facts
from roost.residency.digests import tensor_digest
from tiny_models import default_call

CPU = torch.device("cpu")


def modules_of(family: str, seed: int = 0) -> dict[str, torch.nn.Module]:
    directory, facts = tiny_directory(family), load_class_facts()
    return {
        each.name: random_component(each, directory, facts[each.class_name], CPU, seed)
        for each in inspect_model(directory).components
    }


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
