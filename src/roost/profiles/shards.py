"""How the libraries lay a component's tensors out in safetensors files: names, shards, headers and the index."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roost.facts import WeightsFile

_ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
_HEADER_ALIGNMENT = 8

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One stored set of a component's weights. ``shard_bytes`` None means a single file, however large."""

    base_name: str
    variant: str | None
    dtype: str
    shard_bytes: int | None

    @property
    def index_name(self) -> str:
        return f"{self.base_name}.safetensors.index{self._dotted_variant}.json"

    def file_name(self, number: int, count: int) -> str:
        suffix = f"-{number:05d}-of-{count:05d}" if count > 1 else ""
        return f"{self.base_name}{self._dotted_variant}{suffix}.safetensors"

    @property
    def _dotted_variant(self) -> str:
        return f".{self.variant}" if self.variant else ""


def write_checkpoint(shapes: Shapes, stored: Stored) -> tuple[dict[str, WeightsFile], dict[str, Any] | None]:
    """The weight files by name, and their index if there are several."""
    sizes = {name: math.prod(shape) * _ITEM_BYTES[stored.dtype] for name, shape in shapes.items()}
    shards = _shards(sizes, stored.shard_bytes)
    files: dict[str, WeightsFile] = {}
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file_name = stored.file_name(number, len(shards))
        files[file_name] = _weights_file({name: shapes[name] for name in names}, sizes, stored.dtype)
        weight_map |= dict.fromkeys(names, file_name)
    if len(shards) == 1:
        return files, None
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(weight_map.items()))}
    return files, index


def _shards(sizes: Mapping[str, int], shard_bytes: int | None) -> list[list[str]]:
    """Tensor names file by file, filled in order as huggingface_hub does: a tensor above the limit is alone."""
    if shard_bytes is None:
        return [list(sizes)]
    full: list[list[str]] = []
    filling: list[str] = []
    filled_bytes = 0
    for name, size_bytes in sizes.items():
        if size_bytes > shard_bytes:
            full.append([name])
            continue
        if filled_bytes + size_bytes > shard_bytes:
            full.append(filling)
            filling, filled_bytes = [], 0
        filling.append(name)
        filled_bytes += size_bytes
    return [*full, filling] if filling else full


def _weights_file(shapes: Shapes, sizes: Mapping[str, int], dtype: str) -> WeightsFile:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(shapes):  # as the safetensors library orders tensors of one dtype
        end = offset + sizes[name]
        entries[name] = {"dtype": dtype, "shape": list(shapes[name]), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    return WeightsFile(header=header + b" " * (-len(header) % _HEADER_ALIGNMENT), payload_bytes=offset)
