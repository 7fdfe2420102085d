"""A MOVA-like directory: two DiTs, a bridge, two VAEs; classes that no library here has."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

_COMPONENTS = {
    "video_dit": ("mova", "WanModel", 40),
    "audio_dit": ("mova", "WanAudioModel", 30),
    "dual_tower_bridge": ("mova", "DualTowerConditionalBridge", 2),
    "text_encoder": ("transformers", "UMT5EncoderModel", 24),
    "video_vae": ("diffusers", "AutoencoderKLWan", 4),
    "audio_vae": ("mova", "DAC", 4),
}
_STACKS = {"text_encoder": "encoder.block", "video_vae": "decoder.up_blocks", "audio_vae": "decoder.model"}


def write_mova_directory(directory: Path, block_bytes: int = 2**29) -> None:
    """Writes the index, configs and one sparse bf16 file a component, with blocks of ``block_bytes``."""
    index: dict[str, object] = {"_class_name": "MOVA", "_diffusers_version": "0.36.0"}
    for name, (library, class_name, blocks) in _COMPONENTS.items():
        index[name] = [library, class_name]
        folder = directory / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"_class_name": class_name}))
        stem = "model" if library == "transformers" else "diffusion_pytorch_model"
        stack = _STACKS.get(name, "blocks")
        header = {
            f"{stack}.{block}.linear.weight": {
                "dtype": "BF16",
                "shape": [block_bytes // 2],
                "data_offsets": [block * block_bytes, (block + 1) * block_bytes],
            }
            for block in range(blocks)
        }
        _write_sparse(folder / f"{stem}.safetensors", header, blocks * block_bytes)
    (directory / "model_index.json").write_text(json.dumps(index))


def _write_sparse(path: Path, header: Mapping[str, object], payload_bytes: int) -> None:
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + payload_bytes)
