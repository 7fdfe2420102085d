"""By which method a file's weights are quantised, told by the names and dtypes in its header.

The libraries load such a file as if its scales and codes were not there, so it must be recognised before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from roost.probes.files.header_entries import Sizes

# Codes of less than a byte, or packed ones: no library casts them to a float and has the weight.
_CODES = frozenset({"U8", "I8", "U16", "I16", "U32", "I32", "F4", "F6_E2M3", "F6_E3M2"})
_FP8 = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
_WEIGHT = re.compile(r"(^|\.)weight$", re.MULTILINE)
_SHOWN_FORMATS = 3


@dataclass(frozen=True, slots=True)
class _Sign:
    """Ends of tensor names that only files of one method have."""

    ends: tuple[str, ...]
    method: str


# The first that is there counts: later ones also stand in files of earlier methods.
_SIGNS = (
    _Sign((".scale_weight", "scaled_fp8"), "comfy-fp8-scaled"),
    _Sign((".quant_state.bitsandbytes__nf4",), "bitsandbytes-nf4"),
    _Sign((".quant_state.bitsandbytes__fp4",), "bitsandbytes-fp4"),
    _Sign((".weight.absmax", ".weight.quant_map"), "bitsandbytes-4bit"),
    _Sign((".SCB",), "bitsandbytes-int8"),
    _Sign(("._weight_qdata",), "torchao"),
    _Sign(("._weight_scale", "._weight_zero_point"), "torchao"),
    _Sign((".weight._data", ".weight._scale"), "quanto"),
    _Sign((".wscales", ".smooth_factor", ".proj_down"), "nunchaku-svdquant"),
    _Sign((".qzeros",), "gptq-or-awq"),
    _Sign((".weight_s_rel", ".weight_s_channel"), "asym-w4a8-int8"),
    _Sign(("._amax", "_quantizer._scale"), "modelopt"),
)
# Scales that stand beside the weights in several methods; which one, the weights' dtypes tell.
_SCALES = (".weight_scale", ".weight_scale_2", ".weight_scale_inv", ".input_scale", ".scale_input", ".pre_quant_scale")
_COMFY = ".comfy_quant"
_TELL_NOTHING = (".weight", ".bias")
_COMFY_METADATA = ("_quantization_metadata", "quant_format")


def method_of(sizes: Sizes, metadata: Mapping[str, str]) -> str | None:
    """The method's name, such as ``comfy-fp8-scaled``; None for weights that load as they are.

    Weights that are only cast to 8 bits, without scales, load as they are.
    """
    # Nearly all names end in ways that tell nothing: only the others are searched for every sign.
    telling = [f"{name}\n" for by_name in sizes.values() for name in by_name if not name.endswith(_TELL_NOTHING)]
    names = "".join(telling)
    if any(key in metadata for key in _COMFY_METADATA) or _any_ends(names, (_COMFY,)):
        formats = _comfy_formats(metadata) or _format_of(sizes)
        return f"comfy-quant {formats}" if formats else "comfy-quant"
    for sign in _SIGNS:
        if _any_ends(names, sign.ends):
            return sign.method
    codes = sorted(dtype for dtype in _CODES & sizes.keys() if _WEIGHT.search("\n".join(sizes[dtype])))
    if _any_ends(names, _SCALES) and (codes or _FP8 & sizes.keys()):
        return _format_of(sizes) or "scaled"
    return f"{'+'.join(codes)} codes" if codes else None


def _any_ends(text: str, ends: tuple[str, ...]) -> bool:
    # A search of all names at once: there may be 200,000.
    return any(f"{end}\n" in text for end in ends)


def _format_of(sizes: Sizes) -> str | None:
    """What the dtypes of weights and of their scales make together."""
    names = {dtype: "\n".join((*by_name, "")) for dtype, by_name in sizes.items()}

    def has(dtype: str, *ends: str) -> bool:
        return _any_ends(names.get(dtype, ""), ends)

    if has("F8_E4M3", ".weight_scale") and any(_WEIGHT.search(names.get(each, "")) for each in ("U8", "F4")):
        return "nvfp4"
    if has("U8", ".weight_scale") or has("F8_E8M0", ".weight_scale"):
        return "mxfp8"
    if _WEIGHT.search(names.get("I8", "")):
        return "int8"
    return "fp8-scaled" if _FP8 & names.keys() else None


def _comfy_formats(metadata: Mapping[str, str]) -> str:
    """The formats that a file's metadata names, in words; "" where it names none that can be read."""
    if "quant_format" in metadata:
        return _word(metadata["quant_format"])
    try:
        layers = json.loads(metadata.get("_quantization_metadata", ""))["layers"]
        formats = sorted({_word(each["format"]) for each in layers.values()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""
    return "+".join(formats[:_SHOWN_FORMATS])


def _word(value: object) -> str:
    return re.sub(r"\W", "", str(value), flags=re.ASCII)[:40]
