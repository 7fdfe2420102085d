"""Headers of quantised files for tests: what one linear is stored as in each format, and files with contents."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from directories import ITEM_BITS, framed

Stored = tuple[str, tuple[int, ...]]
N, K = 256, 512
FP8: Stored = ("F8_E4M3", (N, K))
HALVES: Stored = ("U8", (N, K // 2))
INT8: Stored = ("I8", (N, K))
SCALAR: Stored = ("F32", ())
ROWS: Stored = ("F32", (N,))


def filled(
    tensors: Mapping[str, Stored],
    contents: Mapping[str, bytes] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """A safetensors file of zeros, but for those tensors, bytes, whose ``contents`` are given."""
    contents = contents or {}
    everything = {**tensors, **{name: ("U8", (len(raw),)) for name, raw in contents.items()}}
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data = bytearray()
    for name, (dtype, shape) in everything.items():
        raw = contents.get(name, bytes(math.prod(shape) * ITEM_BITS[dtype] // 8))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return framed(json.dumps(header, separators=(",", ":")).encode(), bytes(data))


def marker(format: str, **more: object) -> bytes:
    """ComfyUI's words about one layer."""
    return json.dumps({"format": format, **more}).encode()


def state(rows: int = N, columns: int = K) -> bytes:
    """What bitsandbytes keeps of a 4-bit weight."""
    return json.dumps({"quant_type": "nf4", "blocksize": 64, "shape": [rows, columns]}).encode()


# By the key of the format: its tensors after the layer's name, what stands in those that are bytes, bits a weight.
_BLOCKS: dict[str, Stored] = {"weight.absmax": ("F32", (N * K // 64,)), "weight.quant_map": ("F32", (16,))}
_FOUR_BITS: dict[str, Stored] = {"weight": ("U8", (N * K // 2, 1)), **_BLOCKS}
_LOW_RANK: dict[str, Stored] = {"proj_down": ("BF16", (K, 32)), "proj_up": ("BF16", (N, 32))}
LINEARS: dict[str, tuple[dict[str, Stored], dict[str, bytes], float]] = {
    "float8-cast": ({"weight": FP8}, {}, 8.0),
    "comfy-fp8-scaled": ({"weight": FP8, "scale_weight": SCALAR, "scale_input": SCALAR}, {}, 8.0),
    "float8_e4m3fn": ({"weight": FP8, "weight_scale": SCALAR}, {"comfy_quant": marker("float8_e4m3fn")}, 8.0),
    "float8_e5m2": (
        {"weight": ("F8_E5M2", (N, K)), "weight_scale": SCALAR},
        {"comfy_quant": marker("float8_e5m2")},
        8.0,
    ),
    "float8_e4m3fn_rowwise": (
        {"weight": FP8, "weight_scale": ROWS, "input_scale": SCALAR},
        {"comfy_quant": marker("float8_e4m3fn_rowwise")},
        8.063,
    ),
    "float8_e4m3fn_blockwise": (
        {"weight": FP8, "weight_scale": ("F32", (2, 4))},
        {"comfy_quant": marker("float8_e4m3fn_blockwise")},
        8.002,
    ),
    "mxfp8": ({"weight": FP8, "weight_scale": ("U8", (N, K // 32))}, {"comfy_quant": marker("mxfp8")}, 8.25),
    "nvfp4": (
        {"weight": HALVES, "weight_scale": ("F8_E4M3", (N, K // 16)), "weight_scale_2": SCALAR},
        {"comfy_quant": marker("nvfp4")},
        4.5,
    ),
    "int8_tensorwise": (
        {"weight": INT8, "weight_scale": ("F32", (N, 1))}, {"comfy_quant": marker("int8_tensorwise")}, 8.063,
    ),
    "int8_tensorwise+convrot": (
        {"weight": INT8, "weight_scale": SCALAR},
        {"comfy_quant": marker("int8_tensorwise", convrot=True, convrot_groupsize=64)},
        8.0,
    ),
    "int8_blockwise": (
        {"weight": INT8, "weight_scale": ("F32", (2, 4))}, {"comfy_quant": marker("int8_blockwise")}, 8.002,
    ),
    "convrot_w4a4": (
        {"weight": ("I8", (N, K // 2)), "weight_scale": ROWS},
        {"comfy_quant": marker("convrot_w4a4", convrot_groupsize=256)},
        4.063,
    ),
    "asym_w4a8_int8": (
        {"weight": ("I8", (N, K // 2)), "weight_s_rel": ("F8_E4M3", (N, 8)), "weight_s_channel": ROWS},
        {"comfy_quant": marker("asym_w4a8_int8")},
        4.188,
    ),
    "bfl-fp8r": ({"weight": FP8, "weight_scale": ROWS}, {}, 8.063),
    "bfl-nvfp4": (
        {
            "weight": HALVES,
            "weight_scale": ("F8_E4M3", (N, K // 16)),
            "weight_scale_2": SCALAR,
            "input_scale": SCALAR,
        },
        {},
        4.501,
    ),
    "nvfp4-unmarked": (
        {"weight": HALVES, "weight_scale": ("F8_E4M3", (N, K // 16)), "weight_scale_2": SCALAR}, {}, 4.5,
    ),
    "mxfp8-unmarked": ({"weight": FP8, "weight_scale": ("U8", (N, K // 32))}, {}, 8.25),
    "int8-unmarked": ({"weight": INT8, "weight_scale": ROWS}, {}, 8.063),
    "fp8-scale-inv": ({"weight": FP8, "weight_scale_inv": ("F32", (2, 4))}, {}, 8.002),
    "torchao-int8": ({"_weight_qdata": INT8, "_weight_scale": ROWS, "_weight_zero_point": ("I8", (N,))}, {}, 8.078),
    "torchao-float8": ({"_weight_qdata": FP8, "_weight_scale": ("F32", (N, 1))}, {}, 8.063),
    "torchao": ({"_weight_qdata": ("I32", (N, K)), "_weight_scale_and_zero": ("BF16", (4, N, 2))}, {}, 32.25),
    "bitsandbytes-nf4": (
        _FOUR_BITS,
        {"weight.quant_state.bitsandbytes__nf4": state()},
        4.509,
    ),
    "bitsandbytes-fp4": (
        _FOUR_BITS,
        {"weight.quant_state.bitsandbytes__fp4": state()},
        4.509,
    ),
    "bitsandbytes-int8": ({"weight": INT8, "SCB": ROWS}, {}, 8.063),
    "quanto": ({"weight._data": INT8, "weight._scale": ("BF16", (N, 1)), "input_scale": SCALAR}, {}, 8.032),
    "nunchaku-svdquant": (
        {"qweight": ("I8", (N, K // 2)), "wscales": ("BF16", (K // 64, N)), **_LOW_RANK},
        {},
        7.25,
    ),
    "gptq-or-awq": (
        {"qweight": ("I32", (N, K // 8)), "qzeros": ("I32", (4, N // 8)), "scales": ("F16", (4, N))}, {}, 4.156,
    ),
    "modelopt": ({"weight": FP8, "weight_quantizer._amax": SCALAR, "weight_quantizer._scale": SCALAR}, {}, 8.0),
    "sdnq": ({"weight": HALVES, "scale": ROWS, "svd_up": ("BF16", (N, 32)), "svd_down": ("BF16", (32, K))}, {}, 14.126),
}  # fmt: skip


def of_linears(key: str, layers: int = 2, prefix: str = "") -> bytes:
    """A file whose linears are stored in that format, beside a plain norm."""
    stored, contents, _ = LINEARS[key]
    names = [f"{prefix}blocks.{index}.ff" for index in range(layers)]
    tensors = {f"{name}.{end}": each for name in names for end, each in stored.items()}
    inside = {f"{name}.{end}": raw for name in names for end, raw in contents.items()}
    return filled({**tensors, f"{prefix}norm.weight": ("F32", (K,))}, inside, {"format": "pt"})
