"""A component built from its config has the shapes and dtypes that its library's loader gives it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import dynamic_module_utils
from transformers.integrations import hub_kernels

from dry_runs import tiny_directory
from roost.api.models.inspect import inspect_model
from roost.errors import InvalidFile
from roost.facts.model import ClassFacts, Component
from roost.pipelines.build import build_component, build_pipeline
from roost.pipelines.classes import component_class, model_class
from roost.pipelines.internals.of_transformers import closed_to_the_outside
from roost.profiles.class_facts import load_class_facts


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


def test_while_a_directory_loads_transformers_fetches_no_kernel_for_an_attention(monkeypatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(hub_kernels, "is_kernels_available", lambda: True)
    monkeypatch.setattr(hub_kernels, "get_kernel_hub", lambda name, **_: fetched.append(name), raising=False)
    with closed_to_the_outside(), pytest.raises(ValueError, match="fetches no kernels"):
        hub_kernels.load_and_register_attn_kernel("kernels-community/flash-attn2")
    assert fetched == []
    hub_kernels.get_kernel("kernels-community/flash-attn2")  # as before
    assert fetched == ["kernels-community/flash-attn2"]


def test_while_a_directory_loads_nobody_is_asked_whether_its_code_may_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nclass T: pass\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.T", None]}}))
    before = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    with closed_to_the_outside(), pytest.raises(ValueError, match="custom code"):
        transformers.AutoTokenizer.from_pretrained(str(tmp_path))  # what a processor does for its parts
    assert not (tmp_path / "mark").exists()
    assert before == dynamic_module_utils.TIME_OUT_REMOTE_CODE


def test_a_component_that_is_a_pipeline_or_looks_for_another_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="'StableDiffusionPipeline' is a whole pipeline"):
        component_class("diffusers", "StableDiffusionPipeline")
    for library in ("diffusers", "transformers"):
        with pytest.raises(InvalidFile, match="'AutoModel' is no class of a model with weights"):
            model_class(library, "AutoModel")
    index = {"_class_name": "WanPipeline", "tokenizer": ["diffusers", "StableDiffusionPipeline"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidFile, match="whole pipeline"):
        build_pipeline(tmp_path, {})
