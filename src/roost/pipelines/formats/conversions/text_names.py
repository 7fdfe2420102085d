"""Names of text encoders' tensors in llama.cpp's files, and how their values differ from the library's. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from roost.errors import InvalidFile
from roost.facts.weight_files import WeightFile

_LAYER = "model.layers.{}."
_BLOCK = "encoder.block.{}.layer."
# llama.cpp's name within a block -> transformers'. A tensor's last word (weight, bias) follows.
_DECODER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Gemma has a norm on either side of both halves of a layer.
_GEMMA = _DECODER | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_T5 = {
    "attn_q": "0.SelfAttention.q",
    "attn_k": "0.SelfAttention.k",
    "attn_v": "0.SelfAttention.v",
    "attn_o": "0.SelfAttention.o",
    "attn_rel_b": "0.SelfAttention.relative_attention_bias",
    "attn_norm": "0.layer_norm",
    "ffn_gate": "1.DenseReluDense.wi_0",
    "ffn_up": "1.DenseReluDense.wi_1",
    "ffn_down": "1.DenseReluDense.wo",
    "ffn_norm": "1.layer_norm",
}
# T5 without a gate has one matrix before its activation.
_T5_PLAIN = _T5 | {"ffn_up": "1.DenseReluDense.wi"}
_DECODER_ROOT = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_T5_ROOT = {"token_embd": "shared", "enc.output_norm": "encoder.final_layer_norm"}
_IN_BLOCK = re.compile(r"^(?:enc\.)?blk\.(\d+)\.([a-z_]+)\.(weight|bias)$")
_AT_ROOT = re.compile(r"^([a-z_.]+)\.(weight|bias)$")
# llama.cpp's architecture -> the model types of transformers' configs that it may be.
_ARCHITECTURES = {
    "t5": ("t5", "umt5"),
    "t5encoder": ("t5", "umt5"),
    "llama": ("llama", "mistral"),
    "qwen2": ("qwen2", "qwen2_5_vl"),
    "qwen2vl": ("qwen2_5_vl", "qwen2_vl"),
    "qwen3": ("qwen3",),
    "gemma2": ("gemma2",),
    "gemma3": ("gemma3", "gemma3_text"),
}


@dataclass(frozen=True, slots=True)
class Renamed:
    """A tensor's name in transformers, the ``heads`` whose rows llama.cpp interleaved, and what to add to values."""

    name: str
    heads: int = 0
    add: float = 0.0


def is_llama_cpp(names: Iterable[str]) -> bool:
    """Whether the names are those that llama.cpp gives to a language model's tensors."""
    return any(name.startswith(("blk.", "enc.blk.")) for name in names)


def library_names(file: WeightFile, names: Iterable[str], config: Any) -> dict[str, Renamed]:
    """What each of llama.cpp's names is in transformers, of those that its class has; others are left out.

    ``config`` is the component's. Raises InvalidFile where the file is of another architecture than that.
    """
    kinds = _kinds(config)
    architecture = file.metadata.get("general.architecture")
    wanted = _ARCHITECTURES.get(str(architecture))
    if wanted is None or not set(wanted) & kinds:
        raise InvalidFile(
            f"{file.path}: its architecture is {str(architecture)[:40]!r}, and the component's config is of"
            f" {' or '.join(sorted(kinds))}; give the file of that encoder."
        )
    blocks, root, place = _tables(wanted, names := list(names))
    found = {}
    for name in names:
        if (match := _IN_BLOCK.match(name)) and match[2] in blocks:
            renamed = f"{place.format(match[1])}{blocks[match[2]]}.{match[3]}"
        elif (match := _AT_ROOT.match(name)) and match[1] in root:
            renamed = f"{root[match[1]]}.{match[2]}"
        else:
            continue
        found[name] = Renamed(renamed, _heads(str(architecture), name, config), _offset(str(architecture), renamed))
    return found


def _tables(wanted: tuple[str, ...], names: list[str]) -> tuple[Mapping[str, str], Mapping[str, str], str]:
    if "t5" in wanted:
        gated = any(".ffn_gate." in name for name in names)
        return (_T5 if gated else _T5_PLAIN), _T5_ROOT, _BLOCK
    return (_GEMMA if wanted[0].startswith("gemma") else _DECODER), _DECODER_ROOT, _LAYER


def _heads(architecture: str, name: str, config: Any) -> int:
    """llama.cpp turns rotary pairs of Llama's queries and keys from halves to neighbours; of no other it does."""
    if architecture != "llama":
        return 0
    text = getattr(config, "text_config", None) or config
    if ".attn_q." in name:
        return int(text.num_attention_heads)
    return int(text.num_key_value_heads) if ".attn_k." in name else 0


def _offset(architecture: str, renamed: str) -> float:
    """Gemma multiplies by one more than its norms' weights, and llama.cpp stores that sum."""
    return -1.0 if architecture.startswith("gemma") and renamed.endswith("norm.weight") else 0.0


def _kinds(config: Any) -> set[str]:
    text = getattr(config, "text_config", None)
    return {str(each.model_type) for each in (config, text) if each is not None}
