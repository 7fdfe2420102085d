"""Generated class facts say what the real libraries do when they load small real models."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from roost.facts.model import ClassFacts
from roost.profiles.class_facts import load_class_facts

FACTS = load_class_facts()
DECODER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
}
CLIP = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def module_name(facts: ClassFacts, stored: str) -> str:
    for pattern, replacement in facts.renames:
        stored = re.sub(pattern, replacement, stored)
    return stored


def is_ignored(facts: ClassFacts, name: str) -> bool:
    return any(re.search(pattern, name) for pattern in facts.ignored)


def kept_in(names: tuple[str, ...], tensors: dict[str, torch.Tensor]) -> set[str]:
    return {each for each in tensors if set(names) & set(each.split("."))}


def float32_names(model: torch.nn.Module) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if tensor.dtype == torch.float32}


def clip_text() -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(**CLIP, vocab_size=32, max_position_embeddings=8))


def clip_vision() -> CLIPVisionModel:
    return CLIPVisionModel(CLIPVisionConfig(**CLIP, image_size=8, patch_size=4))


def qwen3() -> Qwen3Model:
    return Qwen3Model(Qwen3Config(**DECODER, head_dim=8))


def qwen_vision_language() -> Qwen2_5_VLForConditionalGeneration:
    text = {**DECODER, "rope_scaling": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 16,
        "fullatt_block_indexes": [1],
    }
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def published_qwen_name(name: str) -> str:
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def save_under_names(model: PreTrainedModel, directory: Path, stored_name: Callable[[str], str], extra: str) -> None:
    """The model's directory as published: other tensor names and one tensor that its class has no use for."""
    tensors = {stored_name(name): tensor.clone() for name, tensor in model.state_dict().items()}
    model.config.save_pretrained(directory)
    save_file({**tensors, extra: torch.zeros(2)}, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("make", "stored_name", "extra"),
    [
        (clip_text, lambda name: f"text_model.{name}", "text_projection.weight"),
        (clip_vision, lambda name: f"vision_model.{name}", "visual_projection.weight"),
        (qwen3, lambda name: f"model.{name}", "lm_head.weight"),
        (qwen_vision_language, published_qwen_name, "model.layers.0.self_attn.rotary_emb.inv_freq"),
        (clip_text, lambda name: name, "text_projection.weight"),
        (qwen_vision_language, lambda name: name, "model.layers.0.self_attn.rotary_emb.inv_freq"),
    ],
)
def test_stored_names_become_the_names_that_the_library_gives_them(tmp_path, make, stored_name, extra):
    model = make()
    facts = FACTS[type(model).__name__]
    save_under_names(model, tmp_path, stored_name, extra)

    loaded = type(model).from_pretrained(tmp_path, dtype=torch.float32).state_dict()

    stored = load_file(tmp_path / "model.safetensors")
    stored.pop(extra)
    assert is_ignored(facts, module_name(facts, extra))
    assert {module_name(facts, name) for name in stored} == set(loaded)
    # Equal names alone would not show two tensors swapped.
    assert all(torch.equal(tensor, loaded[module_name(facts, name)]) for name, tensor in stored.items())
    assert not any(is_ignored(facts, name) for name in loaded)


def test_old_attention_names_of_a_vae_become_todays(tmp_path):
    model = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def stored_name(name: str) -> str:
        return re.sub(r"(?<=attentions\.0\.)(to_q|to_k|to_v|to_out\.0)", lambda match: old[match[0]], name)

    stored = {stored_name(name): tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_config(tmp_path)
    save_file(stored, tmp_path / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    loaded = AutoencoderKL.from_pretrained(tmp_path).state_dict()

    facts = FACTS["AutoencoderKL"]
    assert set(stored) != set(loaded)
    assert {module_name(facts, name) for name in stored} == set(loaded)
    assert all(torch.equal(tensor, loaded[module_name(facts, name)]) for name, tensor in stored.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_wan_keeps_its_norms_and_time_embedder_in_float32(tmp_path, dtype):
    WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=16, ffn_dim=16, num_layers=2, text_dim=8, freq_dim=16
    ).save_pretrained(tmp_path)
    model = WanTransformer3DModel.from_pretrained(tmp_path, torch_dtype=dtype)

    kept = float32_names(model)
    assert kept == kept_in(FACTS["WanTransformer3DModel"].keep_in_float32, model.state_dict())
    assert "blocks.0.norm2.weight" in kept
    assert "scale_shift_table" in kept
    assert is_ignored(FACTS["WanTransformer3DModel"], "blocks.3.attn2.norm_added_q.weight")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_t5_keeps_wo_in_float32_only_when_float16_is_asked(tmp_path, dtype):
    T5EncoderModel(T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)).save_pretrained(
        tmp_path
    )
    model = T5EncoderModel.from_pretrained(tmp_path, dtype=dtype)

    facts = FACTS["T5EncoderModel"]
    wo = kept_in(facts.keep_in_float32_for_float16, model.state_dict())
    assert len(wo) == 2
    assert facts.keep_in_float32 == ()
    assert float32_names(model) == (wo if dtype == torch.float16 else set())


@pytest.mark.parametrize("name", ["UMT5EncoderModel", "FluxTransformer2DModel", "LTX2Vocoder", "Mistral3Model"])
def test_classes_that_pipelines_use_are_known(name):
    assert name in FACTS


def test_every_pattern_is_a_regular_expression():
    for facts in FACTS.values():
        for pattern in facts.ignored:
            re.compile(pattern)
        for pattern, replacement in facts.renames:
            assert re.compile(pattern).groups >= replacement.count("\\")
