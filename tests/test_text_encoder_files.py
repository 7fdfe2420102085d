"""Text encoders of one file, under every name that files give their tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import gguf
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

import stored_weights
from roost.errors import InvalidFile
from roost.pipelines.formats.modules import build_from_file
from roost.pipelines.formats.recipes import derive_recipe
from single_file_worlds import of_module, scaled_fp8, stored

State = dict[str, torch.Tensor]
_SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "vocab_size": 50}
_DECODER = {**_SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
_T5 = {"vocab_size": 50, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 3, "num_heads": 4}


def _t5(**options: Any) -> torch.nn.Module:
    return T5EncoderModel(T5Config(**_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False, **options))


def _umt5() -> torch.nn.Module:
    return UMT5EncoderModel(UMT5Config(**_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False))


def _clip(kind: type) -> Any:
    sizes = {**_SIZES, "num_attention_heads": 4, "projection_dim": 64, "max_position_embeddings": 12}
    return kind(CLIPTextConfig(**sizes))


def _qwen_vl() -> torch.nn.Module:
    text = {**_SIZES, "num_attention_heads": 4, "num_key_value_heads": 2}
    text |= {"rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]}, "tie_word_embeddings": False}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision | {"fullatt_block_indexes": [1]}, tie_word_embeddings=False
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _filled(module: Any, folder: Path) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for each in module.parameters():
            each.copy_(torch.randn(each.shape, generator=generator))
    module.config.save_pretrained(folder)
    return module


def _load(module: Any, folder: Path, path: Path, dtype: str = "float32") -> tuple[Any, Any]:
    component = of_module("text_encoder", module, folder, dtype)
    recipe = derive_recipe(component, stored(path))
    return build_from_file(component, stored(path), recipe), recipe


def _assert_equal(made: Any, module: Any, tolerance: float = 0.0) -> None:
    wanted = module.state_dict()
    assert made.state_dict().keys() == wanted.keys()
    for name, each in made.state_dict().items():
        assert torch.allclose(each.float(), wanted[name].float(), rtol=0, atol=tolerance), name


# Names by which files of transformers' own kind go, of its earlier versions and of Comfy's.


def _flat_clip(state: State) -> State:
    return {name if name.startswith("text_") else f"text_model.{name}": each for name, each in state.items()}


def _old_qwen_vl(state: State) -> State:
    made = {name.replace("model.language_model.", "model."): each for name, each in state.items()}
    return {name.replace("model.visual.", "visual."): each for name, each in made.items()}


def _prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: each for name, each in state.items()}


_OWN: list[tuple[str, Callable[[], Any], Callable[[State], State]]] = [
    ("t5", _t5, dict),
    (
        "t5 beside a decoder",
        _t5,
        lambda state: state | {"decoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(4, 4)},
    ),
    ("t5 without the second name", _t5, lambda state: {k: v for k, v in state.items() if "embed_tokens" not in k}),
    ("t5 in sd3", _t5, _prefixed("text_encoders.t5xxl.transformer.")),
    ("umt5", _umt5, dict),
    ("clip-l", lambda: _clip(CLIPTextModel), dict),
    ("clip-l of before", lambda: _clip(CLIPTextModel), _flat_clip),
    (
        "clip-l in sd1",
        lambda: _clip(CLIPTextModel),
        lambda s: _prefixed("cond_stage_model.transformer.")(_flat_clip(s)),
    ),
    (
        "clip-l in sdxl",
        lambda: _clip(CLIPTextModel),
        lambda s: _prefixed("conditioner.embedders.0.transformer.")(_flat_clip(s)),
    ),
    ("clip projected", lambda: _clip(CLIPTextModelWithProjection), dict),
    ("qwen2.5-vl", _qwen_vl, dict),
    ("qwen2.5-vl of before", _qwen_vl, _old_qwen_vl),
    ("qwen3", lambda: Qwen3Model(Qwen3Config(**_DECODER)), dict),
    ("qwen3 of a causal model", lambda: Qwen3Model(Qwen3Config(**_DECODER)), _prefixed("model.")),
    ("llama of a causal model", lambda: LlamaModel(LlamaConfig(**_DECODER)), _prefixed("model.")),
    ("gemma2 of a causal model", lambda: Gemma2Model(Gemma2Config(**_DECODER)), _prefixed("model.")),
]


@pytest.mark.parametrize(("make", "rename"), [each[1:] for each in _OWN], ids=[each[0] for each in _OWN])
def test_names_of_several_versions_are_found(make: Any, rename: Any, tmp_path: Path) -> None:
    module = _filled(make(), tmp_path)
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", rename(dict(module.state_dict())))
    made, _ = _load(module, tmp_path, path)
    _assert_equal(made, module)


# llama.cpp's names come from the gguf package's own table.


def _llama_cpp(module: Any, architecture: gguf.MODEL_ARCH, prefix: str = "model.") -> State:
    table = gguf.get_tensor_name_map(architecture, 3)
    made = {}
    for name, each in module.state_dict().items():
        full = name if name.startswith(("shared", "encoder")) else prefix + name
        if name != "encoder.embed_tokens.weight":
            made[table.get_name(full, try_suffixes=(".weight", ".bias"))] = each
    assert None not in made
    return made


def _interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """As llama.cpp's converter turns a head's rows."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def _of_llama(state: State) -> State:
    heads = {"attn_q": 4, "attn_k": 2}
    return {
        name: _interleaved(each, heads[name.split(".")[2]])
        if name.split(".")[2:3] in (["attn_q"], ["attn_k"])
        else each
        for name, each in state.items()
    }


def _of_gemma(state: State) -> State:
    return {name: each + 1 if name.endswith("norm.weight") else each for name, each in state.items()}


_ARCH = gguf.MODEL_ARCH
_CPP: list[tuple[str, Any, gguf.MODEL_ARCH, Any]] = [
    ("t5encoder", _t5, _ARCH.T5ENCODER, dict),
    ("t5", _umt5, _ARCH.T5, dict),
    ("llama", lambda: LlamaModel(LlamaConfig(**_DECODER)), _ARCH.LLAMA, _of_llama),
    ("qwen3", lambda: Qwen3Model(Qwen3Config(**_DECODER)), _ARCH.QWEN3, dict),
    ("gemma2", lambda: Gemma2Model(Gemma2Config(**_DECODER)), _ARCH.GEMMA2, _of_gemma),
]


@pytest.mark.parametrize(("name", "make", "architecture", "change"), _CPP, ids=[each[0] for each in _CPP])
def test_names_of_llama_cpp_are_found_and_its_changes_undone(
    name: str, make: Any, architecture: Any, change: Any, tmp_path: Path
) -> None:
    module = _filled(make(), tmp_path)
    path = stored_weights.write_gguf(tmp_path / "m.gguf", name, change(_llama_cpp(module, architecture)), {})
    made, _ = _load(module, tmp_path, path)
    _assert_equal(made, module, 1e-6 if name == "gemma2" else 0.0)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_llamas_rows_are_put_back_as_they_are_packed(kind: str, tmp_path: Path) -> None:
    """Rows of blocks move whole, so that the layer decodes just what the plain order would have."""
    module = _filled(LlamaModel(LlamaConfig(**_DECODER)), tmp_path)
    state = _llama_cpp(module, _ARCH.LLAMA)
    kinds = {name: kind for name in state if ".attn_q." in name or ".attn_k." in name}
    straight = {
        name: torch.from_numpy(gguf.dequantize(gguf.quantize(state[name].numpy(), _kind(kind)), _kind(kind)))
        for name in kinds
    }
    path = stored_weights.write_gguf(tmp_path / "m.gguf", "llama", _of_llama(state), kinds)
    made, recipe = _load(module, tmp_path, path)
    packed = [each for each in recipe.targets if each.packed]
    assert len(packed) == len(kinds) == 6
    layer = made.layers[1].self_attn
    assert torch.allclose(layer.q_proj.decoded(), straight["blk.1.attn_q.weight"], atol=2e-3)
    assert torch.allclose(layer.k_proj.decoded(), straight["blk.1.attn_k.weight"], atol=2e-3)


def _kind(name: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[name]


@pytest.mark.parametrize("container", ["gguf", "safetensors"])
def test_t5_computes_with_packed_layers_as_with_their_values(container: str, tmp_path: Path) -> None:
    """T5 casts what it computes to the dtype that its last layer says it has."""
    module = _filled(_t5(), tmp_path)
    if container == "gguf":
        state = _llama_cpp(module, _ARCH.T5ENCODER)
        kinds = {
            name: "Q8_0"
            for name in state
            if ".attn_" in name and "norm" not in name and "rel" not in name or ".ffn_" in name and "norm" not in name
        }
        path = stored_weights.write_gguf(tmp_path / "m.gguf", "t5encoder", state, kinds | {"token_embd.weight": "Q8_0"})
    else:
        path = stored_weights.write_safetensors(tmp_path / "m.safetensors", _fp8_scaled(module.state_dict()))
    made, recipe = _load(module, tmp_path, path, "bfloat16")
    assert sum(each.packed for each in recipe.targets) == 21
    tokens = torch.arange(9)[None]
    plain = _plain(made, _t5())
    with torch.inference_mode():
        ours, theirs = made(tokens).last_hidden_state, plain(tokens).last_hidden_state
    assert torch.equal(ours, theirs) and ours.isfinite().all()


def _fp8_scaled(state: State) -> State:
    made = {"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}
    for name, each in state.items():
        if each.ndim == 2 and ("DenseReluDense" in name or "SelfAttention" in name) and "relative" not in name:
            made[name], made[name.replace("weight", "scale_weight")] = scaled_fp8(each)
        else:
            made[name] = each.half()
    return made


def _plain(made: Any, like: Any) -> Any:
    """The same encoder with every packed layer's values in a plain one."""
    state = {}
    for name, part in made.named_modules():
        if hasattr(part, "decoded"):
            state[f"{name}.weight"] = part.decoded()
    state |= {name: each for name, each in made.state_dict().items() if not name.endswith(("packed", "weight_scale"))}
    plain = like.bfloat16()
    plain.load_state_dict(state)
    return plain.eval()


def test_what_t5_keeps_in_float32_is_decoded_as_it_loads(tmp_path: Path) -> None:
    module = _filled(_t5(), tmp_path)
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", _fp8_scaled(module.state_dict()))
    made, _ = _load(module, tmp_path, path, "float16")
    layer = made.encoder.block[0].layer[1].DenseReluDense
    assert type(layer.wo) is torch.nn.Linear and layer.wo.weight.dtype == torch.float32
    assert layer.wi_0.packed.dtype == torch.float8_e4m3fn


def test_open_clip_is_cut_and_turned_as_diffusers_does(tmp_path: Path) -> None:
    module = _filled(_clip(CLIPTextModelWithProjection), tmp_path)
    for prefix in ("conditioner.embedders.1.model.", ""):
        state = {prefix + name: each for name, each in _open_clip(module.state_dict()).items()}
        path = stored_weights.write_safetensors(tmp_path / "m.safetensors", state)
        made, _ = _load(module, tmp_path, path)
        _assert_equal(made, module)


def _open_clip(state: State) -> State:
    made = {
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "text_projection": state["text_projection.weight"].T,
        "logit_scale": torch.ones(()),
    }
    for kind in ("weight", "bias"):
        made[f"ln_final.{kind}"] = state[f"text_model.final_layer_norm.{kind}"]
        for index in range(3):
            old, new = f"text_model.encoder.layers.{index}.", f"transformer.resblocks.{index}."
            joined = torch.cat([state[f"{old}self_attn.{each}_proj.{kind}"] for each in "qkv"])
            made[f"{new}attn.in_proj_{kind}"] = joined
            pairs = {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2"}
            for theirs, ours in (pairs | {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}).items():
                made[f"{new}{ours}.{kind}"] = state[f"{old}{theirs}.{kind}"]
    return made


def test_sd3s_clip_without_a_projection_has_the_unit_matrix(tmp_path: Path) -> None:
    module = _filled(_clip(CLIPTextModelWithProjection), tmp_path)
    with torch.no_grad():
        module.text_projection.weight.copy_(torch.eye(64))
    state = {name: each for name, each in module.state_dict().items() if not name.startswith("text_projection")}
    state = _prefixed("text_encoders.clip_l.transformer.")(state)
    other = _prefixed("text_encoders.clip_g.transformer.")({name: each[..., :32] for name, each in state.items()})
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", other | state)
    made, _ = _load(module, tmp_path, path)
    _assert_equal(made, module)


def test_a_ggufs_language_model_alone_is_no_vision_language_model(tmp_path: Path) -> None:
    module = _filled(_qwen_vl(), tmp_path)
    table = gguf.get_tensor_name_map(_ARCH.QWEN2VL, 3)
    state = {}
    for name, each in _old_qwen_vl(module.state_dict()).items():
        if not name.startswith("visual"):
            state[table.get_name(name, try_suffixes=(".weight", ".bias"))] = each
    path = stored_weights.write_gguf(tmp_path / "m.gguf", "qwen2vl", state, {})
    with pytest.raises(InvalidFile, match="vision tower"):
        _load(module, tmp_path, path)


def test_gemma3_is_found_within_its_vision_language_model(tmp_path: Path) -> None:
    text = Gemma3TextConfig(**_DECODER)
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    config = Gemma3ForConditionalGeneration.config_class(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    module = _filled(Gemma3ForConditionalGeneration(config), tmp_path)
    old = {
        name.replace("model.language_model.", "language_model.model.").replace(
            "model.", "", name.startswith(("model.v", "model.m"))
        ): each
        for name, each in module.state_dict().items()
        if name != "lm_head.weight"
    }
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", old)
    made, _ = _load(module, tmp_path, path)
    _assert_equal(made, module)
