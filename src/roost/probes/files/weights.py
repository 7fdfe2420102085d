"""A file of weights, safetensors or GGUF, as its header describes it: every tensor with its shape and place."""

from __future__ import annotations

import json
from collections.abc import Iterable

from roost.facts.weight_files import StoredTensor, WeightFile
from roost.probes.files.gguf.header import MAGIC, read_gguf_header
from roost.probes.files.header_entries import METADATA_KEY
from roost.probes.files.headers import read_open_header
from roost.probes.files.safe_files import RegularFile, open_regular

# Tensors whose contents say how others are to be read, by the ends of their names.
MARKERS = ("comfy_quant", "scaled_fp8", "quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4")
MAX_MARKER_BYTES = 4096
_PREAMBLE_BYTES = 8  # a safetensors header's length


def read_weight_file(path: str, where: str | None = None) -> WeightFile:
    """What the header of the file at ``path`` says; InvalidFile, with the reason, for what is neither container.

    ``where`` is how messages name the file. Of the data only small markers are read.
    """
    with open_regular(path, where or path) as file:
        if file.bytes >= len(MAGIC) and file.read_at(0, len(MAGIC)) == MAGIC:
            return _read_gguf(file, path)
        return _read_safetensors(file, path)


def _read_gguf(file: RegularFile, path: str) -> WeightFile:
    header = read_gguf_header(file)
    return WeightFile(
        path=path,
        container="gguf",
        tensors=header.tensors,
        metadata=header.metadata,
        sha256=header.sha256,
        file_bytes=file.bytes,
    )


def _read_safetensors(file: RegularFile, path: str) -> WeightFile:
    raw, header = read_open_header(file)
    entries = json.loads(raw)
    entries.pop(METADATA_KEY, None)
    data_start = _PREAMBLE_BYTES + len(raw)
    tensors = {
        name: StoredTensor(
            name=name,
            shape=tuple(entry["shape"]),
            format=entry["dtype"],
            offset=data_start + entry["data_offsets"][0],
            bytes=entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in entries.items()
    }
    return WeightFile(
        path=path,
        container="safetensors",
        tensors=tensors,
        metadata=header.metadata,
        sha256=header.sha256,
        file_bytes=file.bytes,
        small=_markers(file, tensors.values()),
    )


def _markers(file: RegularFile, tensors: Iterable[StoredTensor]) -> dict[str, bytes]:
    return {
        each.name: file.read_at(each.offset, each.bytes)
        for each in tensors
        if each.name.endswith(MARKERS) and each.bytes <= MAX_MARKER_BYTES
    }
