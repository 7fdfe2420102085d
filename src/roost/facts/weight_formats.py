"""The formats in which weights are stored, which of them run as stored, and what to fetch in place of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """``why`` completes "can't be run: it …" and ``instead`` is what would work; both None where the format runs.

    ``in_directory`` where it runs all the same from a directory of its library's.
    """

    key: str
    title: str
    why: str | None = None
    instead: str | None = None
    in_directory: bool = False

    @property
    def runs(self) -> bool:
        return self.why is None


# Whole numbers of one byte are vocabularies and the like; as codes of a weight they have keys of their own.
_PLAIN = ("F32", "F16", "BF16", "F64", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64")
# Those of ggml that diffusers decodes, plain ones left out; a canary compares them.
GGUF_RUN = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")
_GGUF_REST = (
    *("Q8_1", "Q8_K", "Q1_0", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"),
    *("TQ1_0", "TQ2_0", "MXFP4", "NVFP4"),
)
_NOT_DEQUANTISED = "has a type of ggml that diffusers doesn't dequantise"
_OTHER_GGUF = "a GGUF file of another quantisation, such as Q4_K_S or Q3_K_M"
_UNMARKED = "holds codes whose marker or scales aren't in the file"
_WHOLE = "the file that its publisher lists, fetched again, or a GGUF or plain one"
_ROTATED = "is rotated (convrot) and in 4 bits, which only its own package turns back"
_OTHER_COMFY = "a GGUF, or a file of the same model in float8_e4m3fn, mxfp8 or nvfp4"
_NO_ORDER = "doesn't say in which order its halves and scales lie, and exporters differ"
_MARKED = "a file with ComfyUI's markers, or a GGUF"
_OWN_PACKAGE = "is read only by a package of its own"
_DYNAMIC, _WEIGHT_ONLY = "rounds activations, too, in kernels of some cards", "torchao's int8 or float8 weight-only"
_SAVED = "is read with its config alone, from a directory that diffusers saved"
_CUDA_ONLY = "is loaded only by bitsandbytes itself, from a directory on CUDA or a pipeline held with roost.attach"

# Every format that is recognised, by the key that stands in ``quantization_detail.formats``.
WEIGHT_FORMATS: Mapping[str, WeightFormat] = {
    each.key: each
    for each in (
        *(WeightFormat(key, key) for key in _PLAIN),
        *(WeightFormat(key, f"GGUF {key}") for key in GGUF_RUN),
        *(WeightFormat(key, f"GGUF {key}", _NOT_DEQUANTISED, _OTHER_GGUF) for key in _GGUF_REST),
        WeightFormat("float8-cast", "plain cast to 8-bit floats"),
        WeightFormat("comfy-fp8-scaled", "ComfyUI's scaled fp8"),
        WeightFormat("float8_e4m3fn", "ComfyUI's fp8 (e4m3)"),
        WeightFormat("float8_e5m2", "ComfyUI's fp8 (e5m2)"),
        WeightFormat("float8_e4m3fn_rowwise", "ComfyUI's fp8 with a scale a row"),
        WeightFormat("float8_e4m3fn_blockwise", "ComfyUI's fp8 with a scale a block"),
        WeightFormat("mxfp8", "ComfyUI's mxfp8"),
        WeightFormat("hybrid_mxfp8", "mxfp8 with a second scale", "has a second scale for one card's kernels", "mxfp8"),
        WeightFormat("nvfp4", "ComfyUI's nvfp4"),
        WeightFormat("int8_tensorwise", "ComfyUI's int8"),
        WeightFormat("int8_tensorwise+convrot", "ComfyUI's rotated int8"),
        WeightFormat("int8_blockwise", "ComfyUI's int8 with a scale a block"),
        WeightFormat("convrot_w4a4", "ComfyUI's rotated 4 bits", _ROTATED, _OTHER_COMFY),
        WeightFormat("asym_w4a8_int8", "ComfyUI's 4 bits with 8-bit activations", _OWN_PACKAGE, _OTHER_COMFY),
        WeightFormat("bfl-fp8r", "fp8 with scales"),
        WeightFormat("fp8-scale-inv", "fp8 with scales of language models", _OWN_PACKAGE, "a GGUF, or fp8"),
        WeightFormat("bfl-nvfp4", "nvfp4 with a scale of its inputs"),
        WeightFormat("nvfp4-unmarked", "nvfp4 without a marker", _NO_ORDER, _MARKED),
        WeightFormat("mxfp8-unmarked", "mxfp8 without a marker", _NO_ORDER, _MARKED),
        WeightFormat("int8-unmarked", "int8 without a marker", "may be rotated, which only a marker tells", _WHOLE),
        WeightFormat("torchao-int8", "torchao int8", _SAVED, "that directory", in_directory=True),
        WeightFormat("torchao-float8", "torchao float8", _SAVED, "that directory", in_directory=True),
        WeightFormat("torchao", "torchao", "is packed for one device's kernels", _WEIGHT_ONLY),
        WeightFormat("torchao-dynamic", "torchao with quantised activations", _DYNAMIC, _WEIGHT_ONLY),
        WeightFormat("bitsandbytes-nf4", "bitsandbytes nf4", _CUDA_ONLY, "a GGUF such as Q4_K_S"),
        WeightFormat("bitsandbytes-fp4", "bitsandbytes fp4", _CUDA_ONLY, "a GGUF such as Q4_K_S"),
        WeightFormat("bitsandbytes-int8", "bitsandbytes int8", _CUDA_ONLY, "a GGUF such as Q8_0"),
        WeightFormat("quanto", "optimum-quanto", _OWN_PACKAGE, "a GGUF, or fp8"),
        WeightFormat("nunchaku-svdquant", "nunchaku SVDQuant", _OWN_PACKAGE, "a GGUF such as Q4_K_S"),
        WeightFormat("gptq-or-awq", "GPTQ or AWQ", _OWN_PACKAGE, "a GGUF such as Q4_K_S"),
        WeightFormat("modelopt", "ModelOpt", _OWN_PACKAGE, "a GGUF, or fp8"),
        WeightFormat("sdnq", "SDNQ", _OWN_PACKAGE, "a GGUF, or fp8"),
        WeightFormat("unknown codes", "codes of an unknown method", _UNMARKED, _WHOLE),
    )
}

# Those in which a tensor's values are stored as they are.
PLAIN_FORMATS = frozenset(_PLAIN)
_HELD = "a GGUF, or the pipeline in memory, held with roost.attach"

# Methods by the words of directories' configs; what else stands there is as if nobody knew it.
DIRECTORY_METHODS: Mapping[str, WeightFormat] = {
    each.key: each
    for each in (
        WeightFormat("torchao", "torchao"),
        WeightFormat(
            "bitsandbytes", "bitsandbytes", "is loaded by bitsandbytes itself, which needs a CUDA card", _HELD
        ),
        WeightFormat("gguf", "GGUF", "is a file's format, not a directory's", "that file, given with --file"),
        WeightFormat("bfl", "fp8 or nvfp4 with scales", "can't be saved by diffusers", "its file, given with --file"),
        WeightFormat("nunchaku_lite", "nunchaku SVDQuant", _OWN_PACKAGE, "a GGUF such as Q4_K_S"),
        *(
            WeightFormat(key, key, _OWN_PACKAGE, "a GGUF, or fp8")
            for key in ("quanto", "modelopt", "sdnq", "auto-round")
        ),
    )
}


def directory_method(key: str) -> WeightFormat:
    """How weights of a directory are quantised, by what its config or the headers call that."""
    by_files = WeightFormat(
        key, key, "would be loaded wrongly from a directory", "plain weights, or a file with --file"
    )
    return DIRECTORY_METHODS.get(key, by_files)


def weight_format(key: str) -> WeightFormat:
    """The format of that key; one that runs nowhere for a key that nobody knows, such as a marker's newer word."""
    unknown = WeightFormat(key, key, "is newer than this version or misspelt", _OTHER_COMFY)
    return WEIGHT_FORMATS.get(key, unknown)


def formats_that_stop(keys: Iterable[str], *, in_directory: bool = False) -> tuple[WeightFormat, ...]:
    """Those of the formats that don't run as stored, from a file or from a directory."""
    found = (each for each in map(weight_format, keys) if not each.runs)
    return tuple(each for each in found if not (in_directory and each.in_directory))
