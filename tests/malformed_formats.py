"""Quantised files whose markers, metadata or scales are wrong in one way each, and what the refusal has to say."""

from __future__ import annotations

from quantised_files import FP8, INT8, SCALAR, K, N, Stored, marker

_SCALED = {"a.weight": FP8, "a.weight_scale": SCALAR}
_SAID = "_quantization_metadata"
# name -> (tensors, contents, metadata, pattern)
MALFORMED_FORMATS: dict[str, tuple[dict[str, Stored], dict[str, bytes], dict[str, str] | None, str]] = {
    "a marker that is no JSON": (_SCALED, {"a.comfy_quant": b"{"}, None, "marker 'a.comfy_quant' isn't valid JSON"),
    "a marker that is no text": (_SCALED, {"a.comfy_quant": b"\xff"}, None, "byte 0 is not UTF-8"),
    "an empty marker": (_SCALED, {"a.comfy_quant": b""}, None, "isn't valid JSON"),
    "a marker of zeros": ({**_SCALED, "a.comfy_quant": ("U8", (20,))}, {}, None, "isn't valid JSON"),
    "a marker that is a list": (_SCALED, {"a.comfy_quant": b"[1]"}, None, "must be an object"),
    "a marker with a key twice": (_SCALED, {"a.comfy_quant": b'{"format":"a","format":"b"}'}, None, "duplicate key"),
    "a marker of floats": ({**_SCALED, "a.comfy_quant": ("F32", (4,))}, {}, None, "must be a short list of bytes"),
    "a marker of two dimensions": ({**_SCALED, "a.comfy_quant": ("U8", (4, 4))}, {}, None, "must be a short list"),
    "a marker without end": ({**_SCALED, "a.comfy_quant": ("U8", (4097,))}, {}, None, "not U8 of 4097 bytes"),
    "a marker without a format": (_SCALED, {"a.comfy_quant": b"{}"}, None, "names no format"),
    "a format that is a number": (_SCALED, {"a.comfy_quant": b'{"format": 8}'}, None, "names no format"),
    "a format that is no word": (_SCALED, {"a.comfy_quant": marker("x\x1b[2J")}, None, "which is no word"),
    "an endless format": (_SCALED, {"a.comfy_quant": marker("x" * 61)}, None, "names no format"),
    "a switch that is none": (_SCALED, {"a.comfy_quant": marker("mxfp8", convrot=1)}, None, "neither true nor false"),
    "a group size of 17": (
        _SCALED, {"a.comfy_quant": marker("int8_tensorwise", convrot_groupsize=17)}, None, "in groups of '17'",
    ),
    "a marker of no weight": (_SCALED, {"b.comfy_quant": marker("mxfp8")}, None, "'b', which has no weight"),
    "a marker of a plain weight": (
        {"a.weight": ("BF16", (N, K))}, {"a.comfy_quant": marker("float8_e4m3fn")}, None, "is BF16 and its marker says",
    ),
    "a marker of other codes": (
        {"a.weight": INT8}, {"a.comfy_quant": marker("float8_e4m3fn")}, None, "holds I8, which float8_e4m3fn doesn't",
    ),
    "metadata that are no JSON": (_SCALED, {}, {_SAID: "{"}, f"{_SAID} isn't valid JSON"),
    "metadata that are a list": (_SCALED, {}, {_SAID: "[]"}, f"{_SAID} must be an object"),
    "metadata nested without end": (_SCALED, {}, {_SAID: "[" * 100_000}, f"{_SAID} isn't valid JSON"),
    "metadata without layers": (_SCALED, {}, {_SAID: "{}"}, f"{_SAID} has no object of layers"),
    "layers that are a list": (_SCALED, {}, {_SAID: '{"layers": []}'}, "has no object of layers"),
    "a layer that is a text": (_SCALED, {}, {_SAID: '{"layers": {"a": "mxfp8"}}'}, "of layer 'a' must be an object"),
    "a layer that isn't there": (_SCALED, {}, {_SAID: '{"layers": {"z": {"format": "mxfp8"}}}'}, "'z', which has no"),
    "metadata against a marker": (
        _SCALED, {"a.comfy_quant": marker("float8_e4m3fn")}, {_SAID: '{"layers": {"a": {"format": "mxfp8"}}}'},
        "says 'float8_e4m3fn' where the metadata say 'mxfp8'",
    ),
    "a word for the file that is none": (_SCALED, {}, {"quant_format": "a b"}, "which is no word"),
    "an old marker of integers": ({"scaled_fp8": ("I32", (0,)), **_SCALED}, {}, None, "an empty float must stand"),
    "an old marker of 3 elements": ({"scaled_fp8": ("F32", (3,)), **_SCALED}, {}, None, "an empty float must stand"),
    "a scale of too many rows": (
        {"a.weight": FP8, "a.scale_weight": ("F32", (N + 1,))}, {}, None, r"\[257\] for a weight of \[256, 512\]",
    ),
    "a scale of no rows": (
        {"a.weight": FP8, "a.scale_weight": ("F32", (0,))}, {}, None, "'a.scale_weight' has the shape",
    ),
    "exponents of another size": (
        {"a.weight": FP8, "a.weight_scale": ("U8", (N, 3))}, {"a.comfy_quant": marker("mxfp8")}, None,
        "which mxfp8 hasn't",
    ),
    "a marked scale of integers": (
        {"a.weight": FP8, "a.weight_scale": ("I32", ())}, {"a.comfy_quant": marker("float8_e4m3fn")}, None,
        "is I32, and",
    ),
    "blocks for whole rows": (
        {"a.weight": INT8, "a.weight_scale": ("F32", (2, 4))}, {"a.comfy_quant": marker("int8_tensorwise")}, None,
        "which int8_tensorwise hasn't",
    ),
    "one scale for blocks": (
        {"a.weight": INT8, "a.weight_scale": SCALAR}, {"a.comfy_quant": marker("int8_blockwise")}, None,
        "which int8_blockwise hasn't",
    ),
    "a second scale of rows": (
        {"a.weight": ("U8", (N, K // 2)), "a.weight_scale": ("F8_E4M3", (N, 32)), "a.weight_scale_2": ("F32", (N,))},
        {"a.comfy_quant": marker("nvfp4")}, None, "where a single number must stand",
    ),
    "a state that is no JSON": (
        {"a.weight": ("U8", (8, 1)), "a.weight.absmax": SCALAR, "a.weight.quant_map": ("F32", (16,))},
        {"a.weight.quant_state.bitsandbytes__nf4": b"?"}, None, "state 'a.weight.quant_state.bitsandbytes__nf4' isn't",
    ),
    "a state without a shape": (
        {"a.weight": ("U8", (8, 1)), "a.weight.absmax": SCALAR, "a.weight.quant_map": ("F32", (16,))},
        {"a.weight.quant_state.bitsandbytes__nf4": b'{"shape": [2, -8]}'}, None, "has no shape",
    ),
    "a state of another weight": (
        {"a.weight": ("U8", (8, 1)), "a.weight.absmax": SCALAR, "a.weight.quant_map": ("F32", (16,))},
        {"a.weight.quant_state.bitsandbytes__nf4": b'{"shape": [2, 4]}'}, None, "holds other codes",
    ),
}  # fmt: skip
