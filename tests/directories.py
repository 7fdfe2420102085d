"""Small model directories for tests: safetensors files of zeros, indexes, configs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from roost.facts.model import ClassFacts, Component, Inventory, ModelProfile
from roost.probes.model.components import Wanted
from roost.probes.model.inventory import read_inventory

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]  # name -> (dtype, shape)
DIT = ["diffusers", "WanTransformer3DModel"]
ENCODER = ["transformers", "T5EncoderModel"]
VAE = ["diffusers", "AutoencoderKL"]
SINGLE = "diffusion_pytorch_model.safetensors"
BLOCK_ELEMENTS = 36  # of one block of `weights`

ITEM_BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "U8": 8,
    "I8": 8,
    "BF16": 16,
    "F16": 16,
    "F32": 32,
    "I32": 32,
    "I64": 64,
}


def framed(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def safetensors(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """A whole file, as the library writes it; its data are zeros."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        end = offset + math.prod(shape) * ITEM_BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    return framed(json.dumps(header, separators=(",", ":")).encode(), bytes(offset))


def write(path: Path, content: bytes | str | Mapping[str, object]) -> Path:
    """A file with bytes, text or a JSON object, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, bytes | str) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def weights(count: int = 4, dtype: str = "BF16", first: int = 0) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Two tensors in each of ``count`` blocks: 8 × 4 and 4 elements."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for index in range(first, first + count):
        found[f"blocks.{index}.attn.weight"] = (dtype, (8, 4))
        found[f"blocks.{index}.attn.bias"] = (dtype, (4,))
    return found


def write_pipeline(root: Path, components: Mapping[str, object], **entries: object) -> Path:
    """A ``model_index.json`` of a WanPipeline with these components, and a ``config.json`` in each one's folder."""
    write(root / "model_index.json", {"_class_name": "WanPipeline", **components, **entries})
    for name, value in components.items():
        if isinstance(value, list) and isinstance(value[0], str):
            write(root / name / "config.json", {})
    return root


def write_sharded(folder: Path, stem: str, shards: Mapping[str, Tensors], index_name: str | None = None) -> None:
    """Shards by file name, and an index that tells the truth about them."""
    for file_name, tensors in shards.items():
        write(folder / file_name, safetensors(tensors))
    weight_map = {name: file_name for file_name, tensors in shards.items() for name in tensors}
    index_name = index_name or f"{stem}.safetensors.index.json"
    write(folder / index_name, {"metadata": {"total_size": 0}, "weight_map": weight_map})


def with_dit(root: Path, tensors: Tensors, **entries: object) -> Path:
    """A pipeline whose only component is a transformer with these tensors, in one file."""
    write_pipeline(root, {"transformer": DIT}, **entries)
    write(root / "transformer" / SINGLE, safetensors(tensors))
    return root


def dit_of(inventory: Inventory) -> Component:
    return inventory.component("transformer")


def inspect(
    root: Path,
    *,
    variant: str | None = None,
    dtype: str | None = None,
    facts: Mapping[str, ClassFacts] | None = None,
    profile: ModelProfile | None = None,
) -> Inventory:
    return read_inventory(
        root, Wanted(variant=variant, dtype=dtype), class_facts=facts or {}, recognise=lambda index, configs: profile
    )
