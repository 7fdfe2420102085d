"""Canaries of what diffusers keeps private and Roost leans on; ``test_internals`` runs them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("diffusers")

import torch
from diffusers import (
    FirstBlockCacheConfig,
    FluxPipeline,
    FluxTransformer2DModel,
    LayerSkipConfig,
    MagCacheConfig,
    ModelMixin,
    TaylorSeerCacheConfig,
)
from diffusers.hooks import HookRegistry, apply_layer_skip
from diffusers.hooks import ModelHook as DiffusersHook

from roost.facts.weight_formats import GGUF_RUN
from roost.pipelines.internals import (
    of_diffusers,
    of_torch,
)

Linear = torch.nn.Linear


def diffusers_hooks() -> None:
    module = Linear(1, 1)
    HookRegistry.check_if_exists_or_initialize(module).register_hook(DiffusersHook(), "canary")
    registry = vars(module)[of_diffusers.REGISTRY]
    assert of_diffusers.has_hook(vars(module), ("canary",))
    assert not of_diffusers.has_hook(vars(module), ("other",))
    assert of_diffusers.forward_before_hooks(registry) == Linear.forward.__get__(module)
    assert not of_diffusers.may_skip(registry)
    of_diffusers.put_before_hooks(registry, torch.neg)
    assert module(torch.ones(1)) == -1
    of_diffusers.replace_forward(registry, torch.neg, torch.abs)
    assert module(-torch.ones(1)) == 1
    assert all(isinstance(each, of_diffusers.hook_references()) for each in registry._fn_refs)
    caching = inspect.getmodule(FluxTransformer2DModel.enable_cache)
    assert caching is not None
    assert f"self.{of_diffusers.CACHE_CONFIG} = " in inspect.getsource(caching)


def diffusers_caches() -> None:
    kinds = (FirstBlockCacheConfig(), TaylorSeerCacheConfig(use_lite_mode=True), MagCacheConfig(mag_ratios=[1.0] * 28))
    for config in kinds:
        model = _tiny_flux()
        model.enable_cache(config)
        blocks = (*model.transformer_blocks, *model.single_transformer_blocks)
        assert all(of_diffusers.may_skip(vars(each)[of_diffusers.REGISTRY]) for each in blocks)
    model = _tiny_flux()
    apply_layer_skip(model, LayerSkipConfig(indices=[0], fqn="transformer_blocks"))
    assert of_diffusers.may_skip(vars(model.transformer_blocks[0])[of_diffusers.REGISTRY])


def _tiny_flux() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=1, joint_attention_dim=8,
        pooled_projection_dim=8, axes_dims_rope=(2, 2, 4), in_channels=4,
    )  # fmt: skip


def diffusers_attention() -> None:
    model = _tiny_flux()
    processor = model.transformer_blocks[0].attn.processor
    assert getattr(processor, of_diffusers.BACKEND) is None
    with of_diffusers.kept_attention(model):
        model.set_attention_backend("_native_math")
        assert getattr(processor, of_diffusers.BACKEND).value == "_native_math"
    assert getattr(processor, of_diffusers.BACKEND) is None
    model.set_attention_backend("native")


def diffusers_classes() -> None:
    assert set(of_diffusers.lora_components(FluxPipeline)) == {"transformer", "text_encoder"}
    assert {"vae", "transformer", "tokenizer"} <= of_diffusers.expected_components(FluxPipeline)
    assert "image_encoder" in of_diffusers.optional_components(FluxPipeline)
    assert hasattr(ModelMixin, "_fix_state_dict_keys_on_load")
    assert not of_diffusers.converts_its_files(FluxTransformer2DModel)
    assert hasattr(ModelMixin, "_supports_group_offloading")
    assert of_diffusers.takes_group_offload(object())


def diffusers_single_files() -> None:
    from diffusers import UNet2DConditionModel

    convert = of_diffusers.single_file_conversion(FluxTransformer2DModel)
    assert {"checkpoint", "kwargs"} <= set(inspect.signature(convert).parameters)
    assert "config" in inspect.signature(of_diffusers.single_file_conversion(UNet2DConditionModel)).parameters
    assert of_diffusers.single_file_conversion(Linear) is None
    open_clip = inspect.signature(of_diffusers.open_clip_conversion())
    assert {"text_model", "checkpoint", "prefix"} <= set(open_clip.parameters)


def diffusers_blocks() -> None:
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES, dequantize_gguf_tensor

    assert {each.name for each in SUPPORTED_GGUF_QUANT_TYPES} == {*GGUF_RUN, "BF16"}
    decode, values, size = of_diffusers.gguf_blocks("Q8_0")
    blocks = torch.ones(4, size, dtype=torch.uint8)
    layer = of_diffusers.gguf_linear(Linear(values, 4), torch.float32, blocks, "Q8_0")
    assert torch.equal(decode(blocks, values, size).float(), dequantize_gguf_tensor(layer.weight).float())
    assert layer(torch.ones(1, values)).shape == (1, 4)


def diffusers_bfl() -> None:
    plain, weight, scale = Linear(16, 4), torch.ones(4, 16).to(torch.float8_e4m3fn), torch.full((4,), 0.5)
    layer = of_diffusers.bfl_linear(plain, torch.float32, four_bits=False)
    layer.weight, layer.weight_scale = torch.nn.Parameter(weight, False), scale
    values = of_diffusers.dequantize_bfl(weight, {"weight_scale": scale})
    assert torch.equal(layer(torch.eye(16)), torch.nn.functional.linear(torch.eye(16), values, plain.bias))
    assert {"weight_scale", "weight_scale_2", "input_scale"} <= set(
        of_torch.buffers_of(of_diffusers.bfl_linear(plain, torch.float32, four_bits=True))
    )
    module: Any = Linear(1, 1)
    of_diffusers.mark_quantised(module, gguf=True, dtype=torch.bfloat16)
    assert module.hf_quantizer.compute_dtype == torch.bfloat16
    assert module.quantization_method.value == "gguf"


CANARIES: tuple[Callable[[], None], ...] = (
    diffusers_hooks,
    diffusers_caches,
    diffusers_attention,
    diffusers_classes,
    diffusers_single_files,
    diffusers_blocks,
    diffusers_bfl,
)
