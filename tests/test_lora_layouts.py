"""The same LoRA in the layouts of diffusers, Kohya and ComfyUI gives the same adapters."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from live_pipelines import live_pipeline, own_pipeline
from roost.facts.loras import LoraFile
from roost.pipelines.adapters import add_adapter
from roost.pipelines.quiet import quiet_libraries

pytest.importorskip("peft", reason="LoRAs need peft: pip install 'roost[lora]'")

RANK = 4
Layer = tuple[torch.Tensor, torch.Tensor]
Layers = dict[str, Layer]  # by the original model's name


def in_diffusers(layers: Layers) -> dict[str, torch.Tensor]:
    return in_names(layers, "transformer.{}.lora_A.weight", "transformer.{}.lora_B.weight")


def in_comfy(layers: Layers) -> dict[str, torch.Tensor]:
    return in_names(layers, "diffusion_model.{}.lora_A.weight", "diffusion_model.{}.lora_B.weight")


def in_comfy_with_alphas(layers: Layers) -> dict[str, torch.Tensor]:
    found = in_names(layers, "diffusion_model.{}.lora_down.weight", "diffusion_model.{}.lora_up.weight")
    return {**found, **{f"diffusion_model.{name}.alpha": torch.tensor(float(RANK)) for name in layers}}


def in_kohya(layers: Layers) -> dict[str, torch.Tensor]:
    layers = {name.replace(".", "_"): layer for name, layer in layers.items()}
    found = in_names(layers, "lora_unet_{}.lora_down.weight", "lora_unet_{}.lora_up.weight")
    return {**found, **{f"lora_unet_{name}.alpha": torch.tensor(float(RANK)) for name in layers}}


def in_names(layers: Layers, down: str, up: str) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for key, layer in layers.items()
        for name, tensor in zip((down.format(key), up.format(key)), layer, strict=True)
    }


def layers_of(names: dict[str, tuple[int, int]]) -> Layers:
    generator = torch.Generator().manual_seed(0)
    return {
        name: (torch.randn(RANK, inputs, generator=generator), torch.randn(outputs, RANK, generator=generator))
        for name, (inputs, outputs) in names.items()
    }


def wan_layers() -> tuple[Layers, Layers]:
    """Of every linear layer of the blocks, by the original names and by diffusers'."""
    names = {"attn1.": "self_attn.", "attn2.": "cross_attn.", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "o"}
    names |= {"ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2"}
    linear = {
        name: (part.in_features, part.out_features)
        for name, part in live_pipeline("wan2.2").transformer.named_modules()
        if name.startswith("blocks.") and isinstance(part, torch.nn.Linear)
    }
    own = layers_of(linear)

    def original(name: str) -> str:
        for theirs, its in names.items():
            name = name.replace(theirs, its)
        return name

    return {original(name): layer for name, layer in own.items()}, own


def flux_layers() -> Layers:
    transformer = live_pipeline("flux").transformer
    width = transformer.inner_dim
    shapes = {}
    for index in range(len(transformer.transformer_blocks)):
        for stream in ("img", "txt"):
            shapes[f"double_blocks.{index}.{stream}_attn.qkv"] = (width, 3 * width)
            shapes[f"double_blocks.{index}.{stream}_attn.proj"] = (width, width)
    for index in range(len(transformer.single_transformer_blocks)):
        shapes[f"single_blocks.{index}.linear2"] = (5 * width, width)
    return layers_of(shapes)


def adapters(family: str, state: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """The matrices that a file of ``state`` becomes, each up one at its scale."""
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    pipeline = own_pipeline(family)
    lora = LoraFile(path=path, scale=1.0, component=None, sha256="")
    with quiet_libraries():
        added = add_adapter(type(pipeline), {"transformer": pipeline.transformer}, lora, "it")
    assert (added.components, added.unused) == (("transformer",), 0)
    found = {}
    for name, part in pipeline.transformer.named_modules():
        if hasattr(part, "lora_A"):
            found[f"{name}.A"] = part.lora_A["it"].weight
            found[f"{name}.B"] = part.lora_B["it"].weight * part.scaling["it"]
    return found


@pytest.mark.parametrize("layout", [in_comfy, in_kohya, in_comfy_with_alphas])
def test_wan_layouts_give_the_same_adapters(
    layout: Callable[[Layers], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    original, own = wan_layers()
    wanted = adapters("wan2.2", in_diffusers(own), tmp_path / "diffusers.safetensors")
    found = adapters("wan2.2", layout(original), tmp_path / "lora.safetensors")
    assert len(wanted) == 2 * len(own)
    _assert_equal(found, wanted)


@pytest.mark.parametrize("layout", [in_comfy, in_comfy_with_alphas])
def test_flux_layouts_of_original_names_give_the_same_adapters(
    layout: Callable[[Layers], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    layers = flux_layers()
    wanted = adapters("flux", in_kohya(layers), tmp_path / "kohya.safetensors")
    found = adapters("flux", layout(layers), tmp_path / "lora.safetensors")
    assert any("attn.to_q" in name for name in wanted)  # qkv is taken apart
    _assert_equal(found, wanted)


def test_kohya_files_of_sdxl_go_into_denoiser_and_text_encoder(tmp_path: Path) -> None:
    pipeline = own_pipeline("sdxl")
    shapes = {}
    for name, part in pipeline.unet.named_modules():
        if isinstance(part, torch.nn.Linear) and re.search(r"attn1\.to_[qkv]$", name):
            shapes[f"lora_unet_{name.replace('.', '_')}"] = (part.in_features, part.out_features)
    for name, part in pipeline.text_encoder.named_modules():
        if name.endswith(("q_proj", "k_proj", "v_proj", "out_proj")):
            shapes[f"lora_te1_text_model_{name.replace('.', '_')}"] = (part.in_features, part.out_features)
    state = in_names(layers_of(shapes), "{}.lora_down.weight", "{}.lora_up.weight")
    state |= {f"{name}.alpha": torch.tensor(float(RANK)) for name in shapes}
    path = tmp_path / "kohya.safetensors"
    save_file(state, path)
    modules = {name: getattr(pipeline, name) for name in ("unet", "text_encoder", "text_encoder_2")}
    lora = LoraFile(path=path, scale=1.0, component=None, sha256="")
    with quiet_libraries():
        added = add_adapter(type(pipeline), modules, lora, "it")
    assert (added.components, added.layers, added.unused) == (("unet", "text_encoder"), len(shapes), 0)
    assert not any("lora" in name for name, _ in pipeline.text_encoder_2.named_modules())


def _assert_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor)
