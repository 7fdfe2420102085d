"""Which tensors make one quantised weight, a row for each method: what holds the codes, what must and may stand by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FP8 = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
BYTES = frozenset({"U8", "I8"})
_SCALE = frozenset({"F32", "F16", "BF16"})
_EXPONENTS = frozenset({"U8", "F8_E8M0"})
_ANY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """``codes`` is the end of the name of the tensor that holds them; other ends stand after the same beginning.

    ``needs`` maps an end to the dtypes that it may have, any where none are named. An element holds ``packed`` values.
    """

    format: str
    dtypes: frozenset[str]
    codes: str = ".weight"
    needs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    may: tuple[str, ...] = ()
    packed: int = 1


SMOOTHING = ".pre_quant_scale"  # of the inputs, by their columns
_INPUT = (".input_scale", SMOOTHING)
_NESTED = (".weight.nested_absmax", ".weight.nested_quant_map")


def _bitsandbytes(kind: str) -> Layout:
    state = f".weight.quant_state.bitsandbytes__{kind}"
    needs = {".weight.absmax": _ANY, ".weight.quant_map": _SCALE, state: frozenset({"U8"})}
    return Layout(format=f"bitsandbytes-{kind}", dtypes=frozenset({"U8"}), needs=needs, may=_NESTED, packed=2)


# The first that fits a tensor counts: later ones need less.
UNMARKED: tuple[Layout, ...] = (
    Layout(format="comfy-fp8-scaled", dtypes=FP8, needs={".scale_weight": _SCALE}, may=(".scale_input",)),
    _bitsandbytes("nf4"),
    _bitsandbytes("fp4"),
    Layout(format="bitsandbytes-int8", dtypes=frozenset({"I8"}), needs={".SCB": _SCALE}, may=(".weight_format",)),
    Layout(
        format="torchao-int8",
        dtypes=frozenset({"I8"}),
        codes="._weight_qdata",
        needs={"._weight_scale": _SCALE},
        may=("._weight_zero_point", "._weight_act_scale"),
    ),
    Layout(format="torchao-float8", dtypes=FP8, codes="._weight_qdata", needs={"._weight_scale": _SCALE}),
    Layout(
        format="torchao",
        dtypes=_ANY,
        codes="._weight_qdata",
        may=("._weight_scale", "._weight_zero_point", "._weight_scale_and_zero", "._weight_block_scale"),
    ),
    Layout(
        format="quanto",
        dtypes=_ANY,
        codes=".weight._data",
        needs={".weight._scale": _ANY},
        may=(".weight._shift", ".input_scale", ".output_scale"),
    ),
    Layout(
        format="nunchaku-svdquant",
        dtypes=BYTES,
        codes=".qweight",
        needs={".wscales": _ANY},
        may=(
            *(".smooth_factor", ".smooth_factor_orig", ".proj_down", ".proj_up", ".lora_down", ".lora_up"),
            *(".wcscales", ".wtscale"),
        ),
        packed=2,
    ),
    Layout(
        format="gptq-or-awq",
        dtypes=frozenset({"I32"}),
        codes=".qweight",
        needs={".qzeros": _ANY},
        may=(".scales", ".g_idx"),
        packed=8,
    ),
    Layout(
        format="asym_w4a8_int8",
        dtypes=BYTES,
        needs={".weight_s_rel": FP8, ".weight_s_channel": _SCALE},
        may=(".weight_codebook", ".weight_correction"),
        packed=2,
    ),
    Layout(format="modelopt", dtypes=_ANY, needs={".weight_quantizer._amax": _ANY}, may=(".weight_quantizer._scale",)),
    Layout(format="modelopt", dtypes=_ANY, needs={".weight_quantizer._scale": _ANY}),
    Layout(
        format="bfl-nvfp4",
        dtypes=frozenset({"U8"}),
        needs={".weight_scale": FP8, ".weight_scale_2": _SCALE, ".input_scale": _SCALE},
        may=(SMOOTHING,),
        packed=2,
    ),
    Layout(
        format="nvfp4-unmarked",
        dtypes=frozenset({"U8", "F4"}),
        needs={".weight_scale": FP8, ".weight_scale_2": _SCALE},
        may=_INPUT,
        packed=2,
    ),
    Layout(format="mxfp8-unmarked", dtypes=FP8, needs={".weight_scale": _EXPONENTS}, may=_INPUT),
    Layout(format="bfl-fp8r", dtypes=FP8, needs={".weight_scale": _SCALE}, may=(*_INPUT, ".weight_scale_2")),
    Layout(format="fp8-scale-inv", dtypes=FP8, needs={".weight_scale_inv": _SCALE}, may=_INPUT),
    Layout(format="int8-unmarked", dtypes=frozenset({"I8"}), needs={".weight_scale": _SCALE}, may=_INPUT),
    Layout(format="sdnq", dtypes=_ANY, needs={".svd_up": _ANY, ".svd_down": _ANY}, may=(".scale", ".zero_point")),
)

_FP8_SCALED = Layout(format="float8_e4m3fn", dtypes=frozenset({"F8_E4M3"}), needs={".weight_scale": _SCALE}, may=_INPUT)


def _fp8(word: str, dtype: str = "F8_E4M3") -> Layout:
    return Layout(format=word, dtypes=frozenset({dtype}), needs=_FP8_SCALED.needs, may=_INPUT)


# By the word in a marker, without what it says of rotation.
MARKED: Mapping[str, Layout] = {
    each.format: each
    for each in (
        _fp8("float8_e4m3fn"),
        _fp8("float8_e5m2", "F8_E5M2"),
        _fp8("float8_e4m3fn_rowwise"),
        _fp8("float8_e4m3fn_blockwise"),
        Layout(format="mxfp8", dtypes=frozenset({"F8_E4M3"}), needs={".weight_scale": _EXPONENTS}, may=_INPUT),
        Layout(
            format="hybrid_mxfp8",
            dtypes=frozenset({"F8_E4M3"}),
            needs={".weight_scale": _EXPONENTS},
            may=(*_INPUT, ".weight_scalar"),
        ),
        Layout(
            format="nvfp4",
            dtypes=frozenset({"U8"}),
            needs={".weight_scale": frozenset({"F8_E4M3"}), ".weight_scale_2": _SCALE},
            may=_INPUT,
            packed=2,
        ),
        Layout(format="int8_tensorwise", dtypes=frozenset({"I8"}), needs={".weight_scale": _SCALE}, may=_INPUT),
        Layout(format="int8_blockwise", dtypes=frozenset({"I8"}), needs={".weight_scale": _SCALE}, may=_INPUT),
        Layout(format="convrot_w4a4", dtypes=BYTES, needs={".weight_scale": _SCALE}, may=_INPUT, packed=2),
        Layout(
            format="asym_w4a8_int8",
            dtypes=BYTES,
            needs={".weight_s_rel": FP8, ".weight_s_channel": _SCALE},
            may=(".weight_codebook", ".weight_correction", *_INPUT),
            packed=2,
        ),
    )
}
