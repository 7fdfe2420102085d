"""Layouts of model directories: what their root declares, sorted, and what is malformed in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from directories import (
    BLOCK_ELEMENTS,
    DIT,
    ENCODER,
    SINGLE,
    VAE,
    dit_of,
    inspect,
    safetensors,
    weights,
    with_dit,
    write,
    write_pipeline,
    write_sharded,
)
from roost.errors import InvalidFile, UsageError

TENSORS = 4 * BLOCK_ELEMENTS


def test_what_model_index_declares_is_sorted_into_kinds(tmp_path: Path) -> None:
    entries = {
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer_2": [None, None],
        "image_encoder": None,
        "boundary_ratio": 0.9,
        "expand_timesteps": False,
        "layers": [1, 2],
        "_diffusers_version": "0.42.1",
    }
    inventory = inspect(with_dit(tmp_path, weights(), **entries))
    assert (inventory.layout, inventory.pipeline) == ("diffusers", "WanPipeline")
    assert inventory.weightless == ("scheduler", "tokenizer")
    assert inventory.absent == ("transformer_2", "image_encoder")
    assert inventory.scalars == {"boundary_ratio": 0.9, "expand_timesteps": False}
    component = dit_of(inventory)
    assert (component.library, component.class_name, component.position) == ("diffusers", "WanTransformer3DModel", 1)
    assert (component.tensors, component.bytes, component.bytes_by_dtype) == (8, 2 * TENSORS, {"BF16": 2 * TENSORS})
    assert [(stack.name, stack.block_bytes) for stack in component.stacks] == [("blocks", (2 * BLOCK_ELEMENTS,) * 4)]
    assert component.trunk_bytes == 0


def test_a_flashpack_prefix_is_stripped_from_class_names(tmp_path: Path) -> None:
    write(
        tmp_path / "model_index.json",
        {"_class_name": "FlashPackWanPipeline", "vae": ["diffusers", "FlashPackAutoencoderKL"]},
    )
    write(tmp_path / "vae" / SINGLE, safetensors(weights()))
    inventory = inspect(tmp_path)
    assert (inventory.pipeline, inventory.components[0].class_name) == ("WanPipeline", "AutoencoderKL")


def test_code_in_the_directory_is_reported_and_not_run(tmp_path: Path) -> None:
    components = {"transformer": ["my_model", "MyTransformer"], "text_encoder": ENCODER}
    write_pipeline(tmp_path, components)
    write(tmp_path / "model_index.json", {"_class_name": ["pipeline", "MyPipeline"], **components})
    write(tmp_path / "pipeline.py", "raise SystemExit('run')")
    write(tmp_path / "transformer" / "my_model.py", "raise SystemExit('run')")
    write(tmp_path / "transformer" / SINGLE, safetensors(weights()))
    write(tmp_path / "text_encoder" / "config.json", {"auto_map": {"AutoModel": "code.Model"}})
    write(tmp_path / "text_encoder" / "model.safetensors", safetensors(weights()))
    inventory = inspect(tmp_path)
    assert inventory.pipeline == "MyPipeline"
    assert inventory.custom == ("_class_name", "transformer", "text_encoder")
    assert len(inventory.warnings) == 3


def test_a_component_without_a_folder_is_loaded_from_the_root(tmp_path: Path) -> None:
    write(tmp_path / "model_index.json", {"_class_name": "P", "transformer": DIT})
    write(tmp_path / "config.json", {"_class_name": DIT[1]})
    write(tmp_path / SINGLE, safetensors(weights()))
    assert dit_of(inspect(tmp_path)).files == (SINGLE,)
    write(tmp_path / "config.json", {"_class_name": "AnotherModel"})
    with pytest.raises(InvalidFile, match="transformer/ is missing"):
        inspect(tmp_path)


@pytest.mark.parametrize(
    ("config", "library", "class_name"),
    [({"_class_name": DIT[1]}, *DIT), ({"architectures": [ENCODER[1]]}, *ENCODER)],
)
def test_a_directory_may_be_one_component(config: object, library: str, class_name: str, tmp_path: Path) -> None:
    root = tmp_path / "transformer"
    write(root / "config.json", config)  # type: ignore[arg-type]
    write(root / (SINGLE if library == "diffusers" else "model.safetensors"), safetensors(weights()))
    inventory = inspect(root)
    component = dit_of(inventory)
    assert (inventory.layout, inventory.pipeline) == ("component", None)
    assert (component.library, component.class_name) == (library, class_name)


def test_a_modular_index_tells_what_is_here_and_what_is_elsewhere(tmp_path: Path) -> None:
    source = {"pretrained_model_name_or_path": "org/base", "subfolder": "dit", "variant": None}
    here = [None, None, {**source, "type_hint": DIT}]
    away = ["diffusers", "AutoencoderKL", {**source, "subfolder": "vae", "type_hint": VAE}]
    write(tmp_path / "modular_model_index.json", {"_class_name": "M", "transformer": here, "vae": away})
    write(tmp_path / "dit" / SINGLE, safetensors(weights()))
    inventory = inspect(tmp_path)
    assert inventory.layout == "modular"
    assert dit_of(inventory).files == (f"dit/{SINGLE}",)
    assert inventory.absent == ("vae",)
    assert inventory.warnings == ("vae isn't in this directory: it is loaded from 'org/base'",)


@pytest.mark.parametrize(
    ("prefix", "component"),
    [
        ("model.diffusion_model.", "transformer"),
        ("model.diffusion_model.input_blocks.0.", "unet"),
        ("first_stage_model.", "vae"),
        ("vae.", "vae"),
        ("cond_stage_model.", "text_encoder"),
        ("text_encoders.t5xxl.", "text_encoder"),
        ("conditioner.embedders.0.", "text_encoder"),
        ("double_", "transformer"),
        ("something.", "other"),
    ],
)
def test_components_of_a_checkpoint_in_one_file_are_guessed(prefix: str, component: str, tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors", safetensors({prefix + name: each for name, each in weights().items()}))
    inventory = inspect(tmp_path)
    assert inventory.layout == "single-file"
    assert [each.name for each in inventory.components] == [component]
    assert inventory.components[0].bytes == 2 * TENSORS
    assert any("guessed" in warning for warning in inventory.warnings)


def test_every_tensor_of_a_checkpoint_in_one_file_is_counted_once(tmp_path: Path) -> None:
    tensors = {
        f"{prefix}{name}": each for prefix in ("vae.", "model.diffusion_model.", "") for name, each in weights().items()
    }
    write(tmp_path / "x.safetensors", safetensors(tensors))
    inventory = inspect(tmp_path)
    assert sorted(each.name for each in inventory.components) == ["other", "transformer", "vae"]
    assert sum(each.bytes for each in inventory.components) == 6 * TENSORS
    with pytest.raises(UsageError, match="no variants"):
        inspect(tmp_path, variant="fp16")


INDEX = "model_index.json"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "'_class_name' must be a pipeline's class name, not 'null'"),
        ({"_class_name": 3}, "must be a pipeline's class name, not '3'"),
        ({"_class_name": ["a"]}, "must be a pipeline's class name"),
        ({"_class_name": ""}, "must be a pipeline's class name"),
        ({"_class_name": "P", "transformer": "diffusers"}, "'transformer' must be "),
        ({"_class_name": "P", "transformer": ["diffusers"]}, "'transformer' must be "),
        ({"_class_name": "P", "transformer": [["diffusers"], "X"]}, "'transformer' must be "),
        ({"_class_name": "P", "transformer": [1, 2]}, "'transformer' must be "),
        ({"_class_name": "P", "transformer": {"a": "b"}}, "'transformer' must be "),
        ({"_class_name": "P", "transformer": ["", ""]}, "'transformer' must be "),
        ({"_class_name": "P", "transformer": [None, "X"]}, "'transformer' must be "),
        ({"_class_name": "P", "other": {"a": "b"}}, "'other' must be "),
        ({"_class_name": "P", "../x": DIT}, "'../x' must be named plainly"),
        ({"_class_name": "P", "\x1b[2J\n": DIT}, "must be named plainly"),
        ({"_class_name": "P"}, "declares no component with weights"),
        ({"_class_name": "P", "tokenizer": ["transformers", "T5Tokenizer"]}, "declares no component with weights"),
        ({"_class_name": "P", "vae": VAE, "text_encoder": ENCODER}, "vae/ is missing; text_encoder/ is missing"),
        ("[]", "model_index.json isn't valid JSON: it must be an object"),
        ('{"_class_name":"P","_class_name":"P"}', "duplicate key '_class_name'"),
        ('{"_class_name":NaN}', "NaN is not JSON"),
        ('{"_class_name":1e999}', "too large"),
        ('{"_class_name":"\\udc00"}', "half of a surrogate pair"),
        ("{" * 5000, "isn't valid JSON"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"a":' + "1" * 5000 + "}", "too many digits"),
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("<!doctype html>", "is a web page"),
        (b" " * (33 * 1024**2), "larger than 32 MiB"),
    ],
)
def test_a_wrong_model_index_is_refused_in_one_line(content: object, reason: str, tmp_path: Path) -> None:
    root = with_dit(tmp_path, weights())
    write(root / INDEX, content)  # type: ignore[arg-type]
    with pytest.raises(InvalidFile, match=reason) as error:
        inspect(root)
    assert "\n" not in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "config",
    ["[]", '{"quantization_config":[]}', '{"quantization_config":"x"}', "", "{", b"\xff", '{"a":1,"a":1}'],
)
def test_a_wrong_config_is_refused_and_named(config: str | bytes, tmp_path: Path) -> None:
    root = with_dit(tmp_path, weights())
    write(root / "transformer" / "config.json", config)
    with pytest.raises(InvalidFile, match=r"^transformer/config\.json"):
        inspect(root)


@pytest.mark.parametrize("explicit", [3, "../x.safetensors", "x.bin", "absent.safetensors", ["model.safetensors"]])
def test_a_config_that_names_other_weights_is_checked(explicit: object, tmp_path: Path) -> None:
    write_pipeline(tmp_path, {"text_encoder": ENCODER})
    write(tmp_path / "text_encoder" / "model.safetensors", safetensors(weights()))
    write(tmp_path / "text_encoder" / "config.json", {"transformers_weights": explicit})
    with pytest.raises(InvalidFile, match="transformers_weights"):
        inspect(tmp_path)


def test_weights_that_a_config_names_are_the_ones_loaded(tmp_path: Path) -> None:
    write_pipeline(tmp_path, {"text_encoder": ENCODER})
    write(tmp_path / "text_encoder" / "model.safetensors", safetensors(weights()))
    write_sharded(tmp_path / "text_encoder", "other", {"s.safetensors": weights(2)})
    write(tmp_path / "text_encoder" / "config.json", {"transformers_weights": "other.safetensors.index.json"})
    assert inspect(tmp_path).components[0].files == ("text_encoder/s.safetensors",)


def test_paths_that_hold_no_model_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "x.safetensors", safetensors(weights()))
    with pytest.raises(InvalidFile, match="is a file"):
        inspect(file)
    with pytest.raises(InvalidFile, match="doesn't exist"):
        inspect(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidFile, match="is empty"):
        inspect(tmp_path / "empty")
    write(tmp_path / "gguf" / "model.gguf", b"GGUF")
    with pytest.raises(InvalidFile, match=r"has no model_index\.json \(it holds model\.gguf\)"):
        inspect(tmp_path / "gguf")
