"""Files of classes that diffusers can't convert, or only behind a prefix: names, and the values that arrive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    HunyuanVideo15Transformer3DModel,
)
from safetensors.torch import save_file

import inverted_converters
from random_weights import fill_with_random_weights
from roost.pipelines.formats.conversions.original_names import original_name, rules_of
from roost.pipelines.formats.modules import build_from_file
from single_file_worlds import State, of_module, recipe_of, stored

_LEVELS = {"block_out_channels": (8,) * 4, "layers_per_block": 1, "norm_num_groups": 4}
_TYPES = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}


def _transformer() -> Any:
    return HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2, num_refiner_layers=2,
        text_embed_dim=32, text_embed_2_dim=32, image_embed_dim=12, rope_axes_dim=(4, 6, 6), target_size=16,
    )  # fmt: skip


def _hunyuan_vae() -> Any:
    return AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(32,) * 4, layers_per_block=1, spatial_compression_ratio=8,
        downsample_match_channel=False, upsample_match_channel=False,
    )  # fmt: skip


def _wan_vae() -> Any:
    return AutoencoderKLWan(
        base_dim=8, decoder_base_dim=8, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=2, attn_scales=[],
        temperal_downsample=[False, True, True], is_residual=True, in_channels=12, out_channels=12, patch_size=2,
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4, scale_factor_spatial=16,
    )  # fmt: skip


MODELS = {
    "hunyuanvideo-1.5": _transformer,
    "hunyuanvideo-1.5's VAE": _hunyuan_vae,
    "flux.2's VAE": lambda: AutoencoderKLFlux2(**_LEVELS, **_TYPES, latent_channels=4),
    "wan2.2's VAE": _wan_vae,
}
_LTX = {
    f"{way}{key}": each
    for way in ("", "decoder_")
    for key, each in {"block_out_channels": (8,) * 4, "layers_per_block": (1,) * 5}.items()
}
# What the authors' code calls its modules.
NAMES = {
    "hunyuanvideo-1.5": {
        "time_embed.timestep_embedder.linear_2.bias": "time_in.mlp.2.bias",
        "context_embedder_2.linear_3.weight": "byt5_in.fc3.weight",
        "image_embedder.norm_out.weight": "vision_in.proj.4.weight",
        "context_embedder.token_refiner.refiner_blocks.1.attn.to_k.bias": (
            "txt_in.individual_token_refiner.blocks.1.self_attn_qkv.bias"
        ),
        "transformer_blocks.1.attn.to_q.weight": "double_blocks.1.img_attn_q.weight",
        "transformer_blocks.1.attn.norm_added_k.weight": "double_blocks.1.txt_attn_k_norm.weight",
        "transformer_blocks.0.ff_context.net.2.weight": "double_blocks.0.txt_mlp.fc2.weight",
        "norm_out.linear.weight": "final_layer.adaLN_modulation.1.weight",
    },
    "hunyuanvideo-1.5's VAE": {
        "encoder.down_blocks.0.downsamplers.0.conv.conv.bias": "encoder.down.0.downsample.conv.conv.bias",
        "decoder.mid_block.attentions.0.proj_out.weight": "decoder.mid.attn_1.proj_out.weight",
        "decoder.mid_block.resnets.1.norm1.gamma": "decoder.mid.block_2.norm1.gamma",
        "decoder.up_blocks.0.resnets.1.conv1.conv.weight": "decoder.up.0.block.1.conv1.conv.weight",
    },
    "flux.2's VAE": {
        "quant_conv.weight": "encoder.quant_conv.weight",
        "post_quant_conv.bias": "decoder.post_quant_conv.bias",
        "decoder.up_blocks.0.resnets.1.norm1.weight": "decoder.up.3.block.1.norm1.weight",
        "encoder.mid_block.attentions.0.to_out.0.weight": "encoder.mid.attn_1.proj_out.weight",
        "bn.running_mean": "bn.running_mean",
    },
    "wan2.2's VAE": {
        "encoder.down_blocks.0.downsampler.resample.1.weight": "encoder.downsamples.0.downsamples.2.resample.1.weight",
        "decoder.up_blocks.0.upsampler.time_conv.bias": "decoder.upsamples.0.upsamples.3.time_conv.bias",
        "decoder.up_blocks.1.resnets.2.norm2.gamma": "decoder.upsamples.1.upsamples.2.residual.3.gamma",
        "encoder.mid_block.attentions.0.to_qkv.weight": "encoder.middle.1.to_qkv.weight",
        "quant_conv.bias": "conv1.bias",
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_an_original_file_gives_the_values_of_the_class(name: str, tmp_path: Path) -> None:
    module = MODELS[name]()
    fill_with_random_weights({"vae": module})
    rules = rules_of(type(module).__name__, module.config)
    assert rules is not None
    assert {key: original_name(key, rules) for key in NAMES[name]} == NAMES[name]
    assert NAMES[name].keys() <= module.state_dict().keys()
    _check_values(module, _original(module, rules), tmp_path)


@pytest.mark.parametrize("prefix", ["", "vae."])
def test_an_ltx_vae_is_read_from_a_file_of_its_own(prefix: str, tmp_path: Path) -> None:
    module = AutoencoderKLLTXVideo(latent_channels=8, **_LTX)
    fill_with_random_weights({"vae": module})
    rules = inverted_converters.rules_of(type(module).__name__, module.config)
    _check_values(module, {prefix + name: each for name, each in _original(module, rules).items()}, tmp_path)


def _check_values(module: Any, original: State, tmp_path: Path) -> None:
    save_file(original, tmp_path / "original.safetensors")
    module.save_config(tmp_path / "part")
    component, file = of_module("part", module, tmp_path), stored(tmp_path / "original.safetensors")
    loaded = build_from_file(component, file, recipe_of(component, file)).state_dict()
    wanted = module.state_dict()
    assert loaded.keys() == wanted.keys()
    assert [key for key in wanted if not torch.equal(loaded[key], wanted[key])] == []


def _original(module: Any, rules: Any) -> State:
    """The module's tensors as its authors keep them: fused, with shift before scale, and pixels as convolutions."""
    parts: dict[str, list[torch.Tensor]] = {}
    for key, tensor in module.state_dict().items():
        if key.startswith("norm_out.linear."):
            scale, shift = tensor.chunk(2)
            tensor = torch.cat([shift, scale])  # noqa: PLW2901
        name = original_name(key, rules)
        if ".mid.attn_1." in name and tensor.ndim == 2:
            tensor = tensor[..., None, None]  # noqa: PLW2901
        parts.setdefault(name, []).append(tensor)
    return {name: torch.cat(each) if len(each) > 1 else each[0].clone() for name, each in parts.items()}
