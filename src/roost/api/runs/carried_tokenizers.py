"""Tokenizers that text encoders' files carry, as the files that the model's own class of tokenizer reads.

Its class brings what no GGUF says: how a text is split, and which tokens end or fill one. So ids are those of the
model's directory, whatever a library of today makes of a GGUF. What can't be had so is said, and not taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from roost.facts.weight_files import WeightFile
from roost.probes.files.gguf.header import read_gguf_arrays
from roost.probes.files.safe_files import open_regular
from roost.shell_quoting import shown_path
from roost.units import MiB

Files = Mapping[str, bytes]  # by name, with forward slashes

LARGEST_BYTES = 64 * MiB
_SPIECE = "spiece_model"  # the tensor in which some safetensors files carry a SentencePiece vocabulary
_PREFIX = "tokenizer.ggml."
# Arrays of the metadata that are read, and what stands in each.
_ARRAYS: Mapping[str, type | tuple[type, ...]] = {
    "tokens": str,
    "scores": (int, float),
    "token_type": int,
    "merges": str,
    "precompiled_charsmap": int,
}
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = range(1, 6)  # as SentencePiece and llama.cpp number them
_KINDS = set(range(1, 7))
_T5, _QWEN2 = "T5Tokenizer", "Qwen2Tokenizer"
_QWEN2_END = "<|endoftext|>"  # ends and fills texts by its class
# Converters fill a vocabulary up to the model's rows with the first; the class adds the second by itself.
_BEYOND_T5 = re.compile(r"\[PAD\d+\]|<extra_id_\d+>")
# Pipelines of Qwen3 that put one user's message into its chat template, and what that makes of it. GGUFs have templates
# that others mended. Source: Qwen3's tokenizer_config.json, and how these pipelines call it.
_OF_QWEN3 = ("ZImagePipeline", "Flux2KleinPipeline")
_CHAT_TEMPLATE = r"""
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """The files of a tokenizer by name; ``why_not`` says of a file's tokenizer why it isn't taken."""

    files: Files = field(default_factory=dict)
    why_not: str | None = None


def carried_tokenizer(file: WeightFile, class_name: str, pipeline: str | None) -> Carried:
    """What the text encoder's ``file`` carries for the pipeline's tokenizer of that class, which may be nothing."""
    if _SPIECE in file.tensors:
        return Carried(files={"spiece.model": _content(file, _SPIECE)})
    model = file.metadata.get(f"{_PREFIX}model")
    if file.container != "gguf" or model is None:
        return Carried()
    kind, split = class_name.removesuffix("Fast"), file.metadata.get(f"{_PREFIX}pre")
    if (kind, model) != (_T5, "t5") and (kind, model, split) != (_QWEN2, "gpt2", "qwen2"):
        return Carried(why_not="of tokenizers in GGUFs, only T5's and Qwen2's are known to give the same ids")
    if kind == _QWEN2 and pipeline not in _OF_QWEN3:
        return Carried(why_not=f"{pipeline} needs more of a tokenizer than a GGUF has")
    arrays = _arrays(file)
    files = _unigram(arrays) if kind == _T5 else _byte_level(arrays)
    return Carried(files=files) if files else Carried(why_not=f"the vocabulary in {shown_path(file.path)} isn't whole")


def _content(file: WeightFile, name: str) -> bytes:
    tensor = file.tensors[name]
    if tensor.bytes > LARGEST_BYTES:
        return b""
    with open_regular(file.path, file.path) as opened:
        return opened.read_at(tensor.offset, tensor.bytes)


def _arrays(file: WeightFile) -> Mapping[str, Sequence[Any]]:
    """Those of the vocabulary that hold what they should."""
    with open_regular(file.path, file.path) as opened:
        found = read_gguf_arrays(opened, {f"{_PREFIX}{name}" for name in _ARRAYS})
    named = {key.removeprefix(_PREFIX): each for key, each in found.items()}
    return {name: each for name, each in named.items() if each and isinstance(each[0], _ARRAYS[name])}


def _unigram(arrays: Mapping[str, Sequence[Any]]) -> Files:
    """T5's: the SentencePiece vocabulary that the metadata were made of."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # imported here: start-up does without protobuf

    tokens, scores, types = (arrays.get(name, ()) for name in ("tokens", "scores", "token_type"))
    if not len(tokens) == len(scores) == len(types) or _UNKNOWN not in types or not set(types) <= _KINDS:
        return {}
    count = len(tokens)
    while types[count - 1] in (_UNUSED, _USER_DEFINED) and _BEYOND_T5.fullmatch(tokens[count - 1]):
        count -= 1
    proto = ModelProto()
    for token, score, kind in zip(tokens[:count], scores, types, strict=False):
        proto.pieces.add(piece=token, score=score, type=kind)
    proto.trainer_spec.unk_id = types.index(_UNKNOWN)
    proto.normalizer_spec.precompiled_charsmap = bytes(each & 0xFF for each in arrays.get("precompiled_charsmap", ()))
    return {"spiece.model": proto.SerializeToString()}


def _byte_level(arrays: Mapping[str, Sequence[Any]]) -> Files:
    """Qwen2's: words and merges, then tokens that stand in no word, then rows that nothing uses."""
    tokens, types, merges = (arrays.get(name, ()) for name in ("tokens", "token_type", "merges"))
    words = {token: at for at, (token, kind) in enumerate(zip(tokens, types, strict=False)) if kind == _NORMAL}
    added = {
        at: {"content": token, "special": kind == _CONTROL, "normalized": False}
        for at, (token, kind) in enumerate(zip(tokens, types, strict=False))
        if kind in (_CONTROL, _USER_DEFINED)
    }
    used = [*words.values(), *added]
    ends = any(each["content"] == _QWEN2_END for each in added.values())
    if len(tokens) != len(types) or not merges or not ends or used != list(range(len(used))):
        return {}
    if set(types[len(used) :]) > {_UNUSED}:
        return {}
    return {
        "vocab.json": json.dumps(words).encode(),
        "merges.txt": "\n".join(("#version: 0.2", *merges, "")).encode(),
        "tokenizer_config.json": json.dumps({"added_tokens_decoder": added}).encode(),
        "chat_template.jinja": _CHAT_TEMPLATE.encode(),
    }
