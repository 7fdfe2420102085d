"""Files of the known models at their real sizes: headers written, data left as holes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path

from directories import ITEM_BITS
from gguf_files import NUMBERS, STRING, Entry, framed, key
from roost.probes.files.gguf.ggml_types import GGML_BY_NAME
from roost.profiles.layouts import known_layouts

Shapes = Mapping[str, tuple[int, ...]]
_ALIGNMENT = 32


def shapes_of(model: str, component: str = "transformer", layout: str = "original") -> dict[str, tuple[int, ...]]:
    """The tensors of a known model's component in one of its layouts."""
    known = (each for each in known_layouts() if each.layout == layout)
    return dict(next(each for each in known if (model, component) in each.components).tensors)


def sparse_gguf(path: Path, shapes: Shapes, kind: str, architecture: str, wide: tuple[str, ...] = ()) -> Path:
    """Matrices of whole blocks in ``kind``, those whose names begin like ``wide`` in bfloat16, the rest in float32."""
    entries, offset = [], 0
    for name, shape in shapes.items():
        fits = len(shape) == 2 and shape[-1] % GGML_BY_NAME[kind].block == 0
        own = ("BF16" if name.startswith(wide) else kind) if fits else "F32"
        stored = prod(shape) // GGML_BY_NAME[own].block * GGML_BY_NAME[own].block_bytes
        entries.append(Entry(name, shape[::-1], NUMBERS[own], offset))
        offset += stored + -stored % _ALIGNMENT
    return _with_hole(path, framed(entries, [key("general.architecture", STRING, architecture)]), offset)


def sparse_safetensors(path: Path, shapes: Shapes, dtype: str = "BF16", scale: str | None = None) -> Path:
    """Everything in that dtype; or matrices in it, each with a scalar scale of that name, and the rest in bfloat16."""
    header: dict[str, object] = {}
    offset = 0
    stored = dict[str, tuple[str, tuple[int, ...]]]()
    for name, shape in shapes.items():
        scaled = scale is not None and len(shape) == 2 and name.endswith(".weight")
        stored[name] = (dtype if scaled or scale is None else "BF16", shape)
        if scaled:
            stored[f"{name.removesuffix('.weight')}.{scale}"] = ("F32", ())
    if scale == "scale_weight":
        stored["scaled_fp8"] = (dtype, (0,))
    for name, (each, shape) in stored.items():
        end = offset + prod(shape) * ITEM_BITS[each] // 8
        header[name] = {"dtype": each, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    return _with_hole(path, len(text).to_bytes(8, "little") + text, offset)


def _with_hole(path: Path, head: bytes, data_bytes: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head)
    os.truncate(path, len(head) + data_bytes)
    return path
