"""Text encoders of one file, under every name that files give their tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import torch
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaModel,
    Qwen3Config,
    Qwen3Model,
)

import stored_weights
from checkpoints import flat_clip, open_clip
from file_encoders import DECODER, State, assert_equal, clip, filled, fp8_scaled, load, old_qwen_vl, qwen_vl, t5, umt5

# Names by which files of transformers' own kind go, of its earlier versions and of Comfy's.


def _prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: each for name, each in state.items()}


_OWN: list[tuple[str, Callable[[], Any], Callable[[State], State]]] = [
    ("t5", t5, dict),
    (
        "t5 beside a decoder",
        t5,
        lambda state: state | {"decoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(4, 4)},
    ),
    ("t5 without the second name", t5, lambda state: {k: v for k, v in state.items() if "embed_tokens" not in k}),
    ("t5 in sd3", t5, _prefixed("text_encoders.t5xxl.transformer.")),
    ("umt5", umt5, dict),
    ("clip-l", lambda: clip(CLIPTextModel), dict),
    ("clip-l of before", lambda: clip(CLIPTextModel), flat_clip),
    (
        "clip-l in sd1",
        lambda: clip(CLIPTextModel),
        lambda s: _prefixed("cond_stage_model.transformer.")(flat_clip(s)),
    ),
    (
        "clip-l in sdxl",
        lambda: clip(CLIPTextModel),
        lambda s: _prefixed("conditioner.embedders.0.transformer.")(flat_clip(s)),
    ),
    ("clip projected", lambda: clip(CLIPTextModelWithProjection), dict),
    ("qwen2.5-vl", qwen_vl, dict),
    ("qwen2.5-vl of before", qwen_vl, old_qwen_vl),
    ("qwen3", lambda: Qwen3Model(Qwen3Config(**DECODER)), dict),
    ("qwen3 of a causal model", lambda: Qwen3Model(Qwen3Config(**DECODER)), _prefixed("model.")),
    ("llama of a causal model", lambda: LlamaModel(LlamaConfig(**DECODER)), _prefixed("model.")),
    ("gemma2 of a causal model", lambda: Gemma2Model(Gemma2Config(**DECODER)), _prefixed("model.")),
]


@pytest.mark.parametrize(("make", "rename"), [each[1:] for each in _OWN], ids=[each[0] for each in _OWN])
def test_names_of_several_versions_are_found(make: Any, rename: Any, tmp_path: Path) -> None:
    module = filled(make(), tmp_path)
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", rename(dict(module.state_dict())))
    made, _ = load(module, tmp_path, path)
    assert_equal(made, module)


def test_what_t5_keeps_in_float32_is_decoded_as_it_loads(tmp_path: Path) -> None:
    module = filled(t5(), tmp_path)
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", fp8_scaled(module.state_dict()))
    made, _ = load(module, tmp_path, path, "float16")
    layer = made.encoder.block[0].layer[1].DenseReluDense
    assert type(layer.wo) is torch.nn.Linear
    assert layer.wo.weight.dtype == torch.float32
    assert layer.wi_0.packed.dtype == torch.float8_e4m3fn


def test_open_clip_is_cut_and_turned_as_diffusers_does(tmp_path: Path) -> None:
    module = filled(clip(CLIPTextModelWithProjection), tmp_path)
    for prefix in ("conditioner.embedders.1.model.", ""):
        state = {prefix + name: each for name, each in open_clip(module.state_dict(), layers=3).items()}
        path = stored_weights.write_safetensors(tmp_path / "m.safetensors", state)
        made, _ = load(module, tmp_path, path)
        assert_equal(made, module)


def test_sd3s_clip_without_a_projection_has_the_unit_matrix(tmp_path: Path) -> None:
    module = filled(clip(CLIPTextModelWithProjection), tmp_path)
    with torch.no_grad():
        module.text_projection.weight.copy_(torch.eye(64))
    state = {name: each for name, each in module.state_dict().items() if not name.startswith("text_projection")}
    state = _prefixed("text_encoders.clip_l.transformer.")(state)
    other = _prefixed("text_encoders.clip_g.transformer.")({name: each[..., :32] for name, each in state.items()})
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", other | state)
    made, _ = load(module, tmp_path, path)
    assert_equal(made, module)


def test_gemma3_is_found_within_its_vision_language_model(tmp_path: Path) -> None:
    text = Gemma3TextConfig(**DECODER)
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    config = Gemma3ForConditionalGeneration.config_class(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    module = filled(Gemma3ForConditionalGeneration(config), tmp_path)
    old = {
        name.replace("model.language_model.", "language_model.model.").replace(
            "model.", "", name.startswith(("model.v", "model.m"))
        ): each
        for name, each in module.state_dict().items()
        if name != "lm_head.weight"
    }
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", old)
    made, _ = load(module, tmp_path, path)
    assert_equal(made, module)
