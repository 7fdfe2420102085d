"""Denoisers of tiny models as files of every format that runs: what the tables in docs/ and the tests go by."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import torch

import stored_weights
import tiny_models
from roost.facts.weight_formats import GGUF_RUN
from single_file_worlds import LAYOUTS, State, World, matrices, world
from stored_linears import STORED_LINEARS

FAMILIES = tuple(LAYOUTS)
_ARCHITECTURES = {"wan2.1": "wan", "qwen-image": "qwen_image", "ltx": "ltxv", "sd3": "sd3", "sdxl": "sdxl"}

_NARROW = 32
_OF_TILES = ("float8_e4m3fn_blockwise", "mxfp8", "nvfp4", "int8_blockwise")
_HEADS = {"num_attention_heads": 4, "attention_head_dim": 64}
_WIDE: Mapping[str, Mapping[str, Any]] = {
    "wan2.1": {**_HEADS, "ffn_dim": 256},
    "qwen-image": {**_HEADS, "axes_dims_rope": (16, 24, 24)},
    "ltx": {**_HEADS, "cross_attention_dim": 256},
    "sd3": {**_HEADS, "caption_projection_dim": 256},
    "sdxl": {"block_out_channels": (16, 16, 256)},
}

Write = Callable[[World, str, Path], Path]


def denoiser(family: str) -> str:
    """The component that the file is for."""
    return "unet" if family == "sdxl" else "transformer"


def _gguf(kind: str) -> Write:
    def write(made: World, family: str, folder: Path) -> Path:
        kinds = dict.fromkeys(matrices(made.original, gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]), kind)
        return stored_weights.write_gguf(folder / f"{kind}.gguf", _ARCHITECTURES[family], made.original, kinds)

    return write


def _plain(made: World, family: str, folder: Path) -> Path:
    return stored_weights.write_safetensors(folder / "plain.safetensors", made.original)


def _linears(key: str) -> Write:
    def write(made: World, family: str, folder: Path) -> Path:
        state: State = dict(made.original)
        if key == "comfy-fp8-scaled":
            state["scaled_fp8"] = torch.empty(0, dtype=torch.float8_e4m3fn)
        for name in matrices(made.original):
            layer = name.removesuffix("weight")
            state |= {layer + part: each for part, each in STORED_LINEARS[key](made.original[name].float()).items()}
        return stored_weights.write_safetensors(folder / f"{key}.safetensors", state)

    return write


# The title of each row, the key of its format, and how a denoiser is written so.
_ROWS: tuple[tuple[str, str, Write], ...] = (
    ("plain", "F32", _plain),
    *((f"GGUF {kind}", kind, _gguf(kind)) for kind in GGUF_RUN),
    ("fp8 cast", "float8-cast", _linears("float8-cast")),
    ("Comfy fp8 scaled, old", "comfy-fp8-scaled", _linears("comfy-fp8-scaled")),
    ("Comfy fp8 scaled, new", "float8_e4m3fn", _linears("float8_e4m3fn")),
    ("Comfy fp8 e5m2", "float8_e5m2", _linears("float8_e5m2")),
    ("Comfy fp8, a scale a row", "float8_e4m3fn_rowwise", _linears("float8_e4m3fn_rowwise")),
    ("Comfy fp8, a scale a block", "float8_e4m3fn_blockwise", _linears("float8_e4m3fn_blockwise")),
    ("Comfy mxfp8", "mxfp8", _linears("mxfp8")),
    ("Comfy nvfp4", "nvfp4", _linears("nvfp4")),
    ("Comfy int8", "int8_tensorwise", _linears("int8_tensorwise")),
    ("Comfy int8, rotated", "int8_tensorwise+convrot", _linears("int8_tensorwise+convrot")),
    ("Comfy int8, a scale a block", "int8_blockwise", _linears("int8_blockwise")),
    ("fp8 with a scale a row, unmarked", "bfl-fp8r", _linears("bfl-fp8r")),
    ("nvfp4 with a scale of its inputs", "bfl-nvfp4", _linears("bfl-nvfp4")),
)
FORMATS: Mapping[str, Write] = {title: write for title, _, write in _ROWS}
KEYS: Mapping[str, str] = {title: key for title, key, _ in _ROWS}


def is_wide(form: str) -> bool:
    """Whether the format's blocks are wider than a tiny denoiser, or only come apart every 128 rows."""
    kind = gguf.GGMLQuantizationType.__members__.get(KEYS[form])
    return KEYS[form] in _OF_TILES if kind is None else gguf.GGML_QUANT_SIZES[kind][0] > _NARROW


def made_world(family: str, folder: Path, *, wide: bool = False) -> World:
    """The family's tiny pipeline in ``folder``, and its denoiser by the names of original files.

    A ``wide`` denoiser has layers of 256 rows and columns, as blocks of ggml's K-quants have values.
    """
    tiny_models.build(family, folder)
    made = world(family, folder, **(_WIDE[family] if wide else {}))
    if wide:
        made.module.save_pretrained(folder / denoiser(family))
    return made
