"""Tiny text encoders with random weights, and how a test loads one of a file."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPTextConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from roost.pipelines.formats.modules import build_from_file
from single_file_worlds import of_module, recipe_of, scaled_fp8, stored

State = dict[str, torch.Tensor]
_SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "vocab_size": 50}
DECODER = {**_SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
_T5 = {"vocab_size": 50, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 3, "num_heads": 4}


def t5(**options: Any) -> torch.nn.Module:
    return T5EncoderModel(T5Config(**_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False, **options))


def umt5() -> torch.nn.Module:
    return UMT5EncoderModel(UMT5Config(**_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False))


def clip(kind: type) -> Any:
    sizes = {**_SIZES, "num_attention_heads": 4, "projection_dim": 64, "max_position_embeddings": 12}
    return kind(CLIPTextConfig(**sizes))


def qwen_vl() -> torch.nn.Module:
    text: dict[str, object] = {**_SIZES, "num_attention_heads": 4, "num_key_value_heads": 2}
    text |= {"rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]}, "tie_word_embeddings": False}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision | {"fullatt_block_indexes": [1]}, tie_word_embeddings=False
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def filled(module: Any, folder: Path) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for each in module.parameters():
            each.copy_(torch.randn(each.shape, generator=generator))
    module.config.save_pretrained(folder)
    return module


def load(module: Any, folder: Path, path: Path, dtype: str = "float32") -> tuple[Any, Any]:
    component = of_module("text_encoder", module, folder, dtype)
    recipe = recipe_of(component, stored(path))
    return build_from_file(component, stored(path), recipe), recipe


def assert_equal(made: Any, module: Any, tolerance: float = 0.0) -> None:
    wanted = module.state_dict()
    assert made.state_dict().keys() == wanted.keys()
    for name, each in made.state_dict().items():
        assert torch.allclose(each.float(), wanted[name].float(), rtol=0, atol=tolerance), name


def old_qwen_vl(state: State) -> State:
    """Names of Qwen2.5-VL before transformers gave the language model a place of its own."""
    made = {name.replace("model.language_model.", "model."): each for name, each in state.items()}
    return {name.replace("model.visual.", "visual."): each for name, each in made.items()}


def fp8_scaled(state: State) -> State:
    """T5's weights as Comfy's older scaled files have them."""
    made = {"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}
    for name, each in state.items():
        if each.ndim == 2 and ("DenseReluDense" in name or "SelfAttention" in name) and "relative" not in name:
            made[name], made[name.replace("weight", "scale_weight")] = scaled_fp8(each)
        else:
            made[name] = each.half()
    return made
