"""A valid model directory of a few hundred bytes, to be damaged: a sharded DiT, an encoder, a VAE, a scheduler."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SHARDS = ("diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors")
SHARD_INDEX = "transformer/diffusion_pytorch_model.safetensors.index.json"
VAE_WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
ENCODER_WEIGHTS = "text_encoder/model.safetensors"

INDEX = {
    "_class_name": "WanPipeline",
    "_diffusers_version": "0.36.0",
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
}
_TENSOR_BYTES = 64


def header_entries(*names: str) -> dict[str, Any]:
    """Entries of bf16 tensors that follow each other."""
    return {
        name: {
            "dtype": "BF16",
            "shape": [_TENSOR_BYTES // 2],
            "data_offsets": [position * _TENSOR_BYTES, (position + 1) * _TENSOR_BYTES],
        }
        for position, name in enumerate(names)
    }


def safetensors(header: object, payload_bytes: int | None = None) -> bytes:
    """A safetensors file with ``header`` (an object, or its text) and as many zeros as its tensors take."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    if payload_bytes is None:
        payload_bytes = _TENSOR_BYTES * len(header) if isinstance(header, dict) else 0
    return len(text).to_bytes(8, "little") + text + bytes(payload_bytes)


def write_small_model(directory: Path) -> Path:
    """Writes the directory and returns it."""
    for name in ("transformer", "text_encoder", "vae", "scheduler", "tokenizer"):
        (directory / name).mkdir(parents=True)
    write_json(directory / "model_index.json", INDEX)
    for name, (_, class_name) in list(INDEX.items())[2:5]:
        key = "architectures" if name == "text_encoder" else "_class_name"
        write_json(directory / name / "config.json", {key: [class_name] if key == "architectures" else class_name})
    write_json(directory / "scheduler" / "scheduler_config.json", {"_class_name": "UniPCMultistepScheduler"})
    write_json(directory / "tokenizer" / "tokenizer_config.json", {})
    weight_map = {}
    for number, shard in enumerate(SHARDS):
        names = [f"blocks.{2 * number + block}.attn.weight" for block in range(2)]
        (directory / "transformer" / shard).write_bytes(safetensors(header_entries(*names)))
        weight_map |= dict.fromkeys(names, shard)
    write_json(directory / SHARD_INDEX, {"metadata": {"total_size": 4 * _TENSOR_BYTES}, "weight_map": weight_map})
    (directory / ENCODER_WEIGHTS).write_bytes(safetensors(header_entries("shared.weight", "encoder.block.0.a.weight")))
    (directory / VAE_WEIGHTS).write_bytes(safetensors(header_entries("encoder.conv_in.weight", "decoder.conv.weight")))
    return directory


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def edit_json(path: Path, change: Callable[[dict[str, Any]], object] | Mapping[str, object]) -> None:
    """Applies ``change`` to the object in a JSON file: a function on it, or keys to set."""
    content = json.loads(path.read_text())
    if callable(change):
        change(content)
    else:
        content.update(change)
    write_json(path, content)
