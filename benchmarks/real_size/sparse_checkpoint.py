"""Sparse safetensors checkpoints: true headers, indexes and file sizes, with no data behind them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.serialization import split_state_dict_into_shards_factory

Shapes = Mapping[str, tuple[int, ...]]
_ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
_HEADER_ALIGNMENT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointLayout:
    """How a library lays one stored set of weights out in files. `shard_bytes` None: a single file."""

    base_name: str
    variant: str
    dtype: str
    shard_bytes: int | None

    @property
    def weights_pattern(self) -> str:
        return f"{self.base_name}{self._dotted_variant}{{suffix}}.safetensors"

    @property
    def index_name(self) -> str:
        return f"{self.base_name}.safetensors.index{self._dotted_variant}.json"

    @property
    def _dotted_variant(self) -> str:
        return f".{self.variant}" if self.variant else ""


def write_checkpoint(folder: Path, shapes: Shapes, layout: CheckpointLayout) -> int:
    """Write the weight files, and their index if there are several; the size of all weight files in bytes."""
    payload_bytes = sum(math.prod(shape) for shape in shapes.values()) * _ITEM_BYTES[layout.dtype]
    split = split_state_dict_into_shards_factory(
        dict(shapes),
        get_storage_size=lambda shape: math.prod(shape) * _ITEM_BYTES[layout.dtype],
        filename_pattern=layout.weights_pattern,
        max_shard_size=layout.shard_bytes or payload_bytes,
    )
    written_bytes = 0
    for file_name, tensor_names in split.filename_to_tensors.items():
        chosen = {name: shapes[name] for name in tensor_names}
        written_bytes += write_sparse_file(folder / file_name, chosen, layout.dtype)
    if split.is_sharded:
        weight_map = dict(sorted(split.tensor_to_filename.items()))
        index = {"metadata": {"total_size": payload_bytes}, "weight_map": weight_map}
        (folder / layout.index_name).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return written_bytes


def write_sparse_file(path: Path, shapes: Shapes, dtype: str) -> int:
    """Write one safetensors file whose data region is a hole; its apparent size in bytes."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(shapes):  # as the safetensors library orders tensors of one dtype
        end = offset + math.prod(shapes[name]) * _ITEM_BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shapes[name]), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _HEADER_ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        size_bytes = file.tell() + offset
        file.truncate(size_bytes)
    return size_bytes
