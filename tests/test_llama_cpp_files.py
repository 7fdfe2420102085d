"""Text encoders of one file under llama.cpp's names, with what its converter changes undone."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import gguf
import torch
from transformers import Gemma2Config, Gemma2Model, LlamaConfig, LlamaModel, Qwen3Config, Qwen3Model

import stored_weights
from file_encoders import DECODER, State, assert_equal, filled, fp8_scaled, load, old_qwen_vl, qwen_vl, t5, umt5
from roost.errors import InvalidFile

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
    ("t5encoder", t5, _ARCH.T5ENCODER, dict),
    ("t5", umt5, _ARCH.T5, dict),
    ("llama", lambda: LlamaModel(LlamaConfig(**DECODER)), _ARCH.LLAMA, _of_llama),
    ("qwen3", lambda: Qwen3Model(Qwen3Config(**DECODER)), _ARCH.QWEN3, dict),
    ("gemma2", lambda: Gemma2Model(Gemma2Config(**DECODER)), _ARCH.GEMMA2, _of_gemma),
]


@pytest.mark.parametrize(("name", "make", "architecture", "change"), _CPP, ids=[each[0] for each in _CPP])
def test_names_of_llama_cpp_are_found_and_its_changes_undone(
    name: str, make: Any, architecture: Any, change: Any, tmp_path: Path
) -> None:
    module = filled(make(), tmp_path)
    path = stored_weights.write_gguf(tmp_path / "m.gguf", name, change(_llama_cpp(module, architecture)), {})
    made, _ = load(module, tmp_path, path)
    assert_equal(made, module, 1e-6 if name == "gemma2" else 0.0)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_llamas_rows_are_put_back_as_they_are_packed(kind: str, tmp_path: Path) -> None:
    """Rows of blocks move whole, so that the layer decodes just what the plain order would have."""
    module = filled(LlamaModel(LlamaConfig(**DECODER)), tmp_path)
    state = _llama_cpp(module, _ARCH.LLAMA)
    kinds = {name: kind for name in state if ".attn_q." in name or ".attn_k." in name}
    straight = {
        name: torch.from_numpy(gguf.dequantize(gguf.quantize(state[name].numpy(), _kind(kind)), _kind(kind)))
        for name in kinds
    }
    path = stored_weights.write_gguf(tmp_path / "m.gguf", "llama", _of_llama(state), kinds)
    made, recipe = load(module, tmp_path, path)
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
    module = filled(t5(), tmp_path)
    if container == "gguf":
        state = _llama_cpp(module, _ARCH.T5ENCODER)
        kinds = {
            name: "Q8_0"
            for name in state
            if (".attn_" in name and "norm" not in name and "rel" not in name)
            or (".ffn_" in name and "norm" not in name)
        }
        path = stored_weights.write_gguf(tmp_path / "m.gguf", "t5encoder", state, kinds | {"token_embd.weight": "Q8_0"})
    else:
        path = stored_weights.write_safetensors(tmp_path / "m.safetensors", fp8_scaled(module.state_dict()))
    made, recipe = load(module, tmp_path, path, "bfloat16")
    assert sum(each.packed for each in recipe.targets) == 21
    tokens = torch.arange(9)[None]
    plain = _plain(made, t5())
    with torch.inference_mode():
        ours, theirs = made(tokens).last_hidden_state, plain(tokens).last_hidden_state
    assert torch.equal(ours, theirs)
    assert ours.isfinite().all()


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


def test_a_ggufs_language_model_alone_is_no_vision_language_model(tmp_path: Path) -> None:
    module = filled(qwen_vl(), tmp_path)
    table = gguf.get_tensor_name_map(_ARCH.QWEN2VL, 3)
    state = {}
    for name, each in old_qwen_vl(module.state_dict()).items():
        if not name.startswith("visual"):
            state[table.get_name(name, try_suffixes=(".weight", ".bias"))] = each
    path = stored_weights.write_gguf(tmp_path / "m.gguf", "qwen2vl", state, {})
    with pytest.raises(InvalidFile, match="vision tower"):
        load(module, tmp_path, path)
