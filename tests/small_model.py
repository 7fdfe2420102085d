"""A valid model directory of a few kilobytes, to be damaged: a sharded DiT, an encoder, a VAE, a scheduler."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from directories import DIT, safetensors, weights, write, write_pipeline, write_sharded

SHARDS = ("diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors")
SHARD_INDEX = "transformer/diffusion_pytorch_model.safetensors.index.json"
VAE_WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
COMPONENTS = {
    "transformer": DIT,
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
}
INDEX = {"_class_name": "WanPipeline", **COMPONENTS}


def write_small_model(model: Path) -> Path:
    """Writes the directory and returns it."""
    write_pipeline(model, COMPONENTS)
    write(model / "scheduler" / "scheduler_config.json", {"_class_name": "UniPCMultistepScheduler"})
    write(model / "tokenizer" / "tokenizer_config.json", {})
    shards = {SHARDS[0]: weights(2), SHARDS[1]: weights(2, first=2)}
    write_sharded(model / "transformer", "diffusion_pytorch_model", shards)
    write(model / "text_encoder" / "model.safetensors", safetensors({"shared.weight": ("BF16", (8, 4))}))
    write(model / VAE_WEIGHTS, safetensors({"decoder.conv_in.weight": ("F32", (8, 4))}))
    return model


def edit_json(path: Path, change: Callable[[dict[str, Any]], object] | Mapping[str, object]) -> None:
    """Applies ``change`` to the object in a JSON file: a function on it, or keys to set."""
    content = json.loads(path.read_text())
    if callable(change):
        change(content)
    else:
        content.update(change)
    write(path, content)
