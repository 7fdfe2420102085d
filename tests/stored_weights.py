"""Small weight files and their headers, read by the packages that own the formats."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

from roost.facts.weight_files import StoredTensor, WeightFile

SMALL_BYTES = 4096


def write_safetensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> Path:
    save_file({name: each.contiguous().clone() for name, each in tensors.items()}, path, dict(metadata or {}) or None)
    return path


def read_safetensors(path: Path) -> WeightFile:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    tensors, small = {}, {}
    for name, entry in header.items():
        start, stop = (8 + length + each for each in entry["data_offsets"])
        tensors[name] = StoredTensor(
            name=name, shape=tuple(entry["shape"]), format=entry["dtype"], offset=start, bytes=stop - start
        )
        if name.endswith(".comfy_quant") and stop - start <= SMALL_BYTES:
            small[name] = content[start:stop]
    return WeightFile(
        path=str(path),
        container="safetensors",
        tensors=tensors,
        metadata=metadata,
        sha256=hashlib.sha256(content[: 8 + length]).hexdigest(),
        file_bytes=len(content),
        small=small,
    )


Kinds = Mapping[str, str]


Keys = Mapping[str, str | Sequence[Any]]


def write_gguf(
    path: Path, architecture: str, tensors: Mapping[str, torch.Tensor], kinds: Kinds, keys: Keys | None = None
) -> Path:
    """``kinds`` are ggml's types by name; every other tensor is F32. K-quants are random blocks with finite scales.

    ``keys`` are texts and arrays of a tokenizer.
    """
    writer = gguf.GGUFWriter(str(path), architecture)
    for key, value in (keys or {}).items():
        if isinstance(value, str):
            writer.add_string(f"tokenizer.ggml.{key}", value)
        else:
            writer.add_array(f"tokenizer.ggml.{key}", value)
    for name, tensor in tensors.items():
        kind = gguf.GGMLQuantizationType[kinds.get(name, "F32")]
        values = tensor.float().numpy()
        if kind.name in ("F32", "F16"):
            writer.add_tensor(name, values.astype(np.float32 if kind.name == "F32" else np.float16))
        else:
            packed = (
                random_blocks(kind, values.shape) if "_K" in kind.name or "IQ" in kind.name else quantised(values, kind)
            )
            writer.add_tensor(name, packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantised(values: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    return gguf.quantize(values, kind)


def random_blocks(kind: gguf.GGMLQuantizationType, shape: tuple[int, ...]) -> np.ndarray:
    """Blocks of random bytes whose sixteen-bit scales, wherever they lie, are small finite numbers."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    packed = np.random.default_rng(math.prod(shape)).integers(0, 256, (math.prod(shape) // values, size), np.uint8)
    scales = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}.get(kind.name, (0,))
    for at in scales:
        packed[:, at + 1] = packed[:, at + 1] & 0x83 | 0x20
    return packed.reshape(*shape[:-1], shape[-1] // values * size)


def read_gguf(path: Path) -> WeightFile:
    reader = gguf.GGUFReader(path)
    tensors = {
        each.name: StoredTensor(
            name=each.name,
            shape=tuple(int(size) for size in reversed(each.shape)),
            format=each.tensor_type.name,
            offset=int(each.data_offset),
            bytes=int(each.n_bytes),
        )
        for each in reader.tensors
    }
    content = path.read_bytes()
    architecture = reader.fields["general.architecture"].contents()
    return WeightFile(
        path=str(path),
        container="gguf",
        tensors=tensors,
        metadata={"general.architecture": architecture},
        sha256=hashlib.sha256(content[:1000]).hexdigest(),
        file_bytes=len(content),
    )
