"""A component built from its config has the shapes and dtypes that its library's loader gives it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dry_runs import tiny_directory
from roost.api.inspection import inspect_model
from roost.errors import InvalidFile
from roost.facts import ClassFacts, Component
from roost.pipelines.classes import component_class
from roost.pipelines.from_configs import build_component
from roost.profiles.classes import load_class_facts


def layouts(module: torch.nn.Module) -> dict[str, tuple[Any, ...]]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: (tuple(each.shape), each.dtype) for name, each in tensors}


def loaded(component: Component, family: str) -> torch.nn.Module:
    found: Any = component_class(component.library, component.class_name)
    dtype = getattr(torch, component.load_dtype or "float32")
    module: torch.nn.Module = found.from_pretrained(tiny_directory(family), subfolder=component.name, dtype=dtype)
    return module


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("family", ["wan2.2", "flux", "qwen-image"])
def test_every_tensor_has_the_loaders_shape_and_dtype(family: str, dtype: str) -> None:
    for component in inspect_model(tiny_directory(family), dtype=dtype).components:
        facts = load_class_facts()[component.class_name]
        built = build_component(component.name, component, tiny_directory(family), facts, component.tensors)
        assert layouts(built) == layouts(loaded(component, family)), component.name


def test_some_weights_of_a_wan_transformer_stay_float32() -> None:
    component = inspect_model(tiny_directory("wan2.2"), dtype="bfloat16").component("transformer")
    kept = build_component("transformer", component, tiny_directory("wan2.2"), load_class_facts()[component.class_name])
    cast = build_component("transformer", component, tiny_directory("wan2.2"), ClassFacts())
    dtypes = [{dtype for _, dtype in layouts(module).values()} for module in (kept, cast)]
    assert dtypes[0] - {torch.bfloat16} == {torch.float32}
    assert layouts(kept) != layouts(cast)


def test_a_class_that_the_library_lacks_is_named() -> None:
    component = inspect_model(tiny_directory("wan2.2")).component("vae")
    unknown = Component(**{**{name: getattr(component, name) for name in component.__slots__}, "class_name": "NoVae"})
    with pytest.raises(InvalidFile, match="'NoVae' is not a loadable class"):
        build_component("vae", unknown, tiny_directory("wan2.2"), ClassFacts())


def test_a_config_of_absurdly_many_layers_ends_instead_of_building_them(tmp_path: Path) -> None:
    component = inspect_model(tiny_directory("wan2.2")).component("transformer")
    folder = shutil.copytree(tiny_directory("wan2.2") / "transformer", tmp_path / "transformer")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_layers": 10**9}))
    with pytest.raises(InvalidFile, match="far more modules than its files have weights"):
        build_component(component.name, component, tmp_path, ClassFacts(), component.tensors)
