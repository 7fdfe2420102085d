"""How each weight of a file is quantised, by the names, dtypes and markers in its header. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from roost.errors import InvalidFile
from roost.facts.weight_files import Method, StoredTensor, WeightFile
from roost.pipelines.formats.markers import MARKER, markers_of
from roost.pipelines.formats.parts import Part

FP8 = ("F8_E4M3", "F8_E5M2")
PLAIN = ("F64", "F32", "F16", "BF16")
SCALES = ("F32", "F16", "BF16")
_BYTES = ("U8", "I8")
# Those of ggml that diffusers decodes, plain ones left out; a canary compares them.
GGUF = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ4_NL", "IQ4_XS"),
)

_OLD_SCALE, _SCALE, _SCALE_2, _INPUT = "scale_weight", "weight_scale", "weight_scale_2", ("input_scale", "scale_input")
_ROOT_MARKER = "scaled_fp8"
_BESIDE = (_OLD_SCALE, _SCALE, _SCALE_2, *_INPUT, MARKER)
# What only other loaders' files have beside a weight -> whose.
_FOREIGN = {
    "absmax": "bitsandbytes 4 bit",
    "quant_map": "bitsandbytes 4 bit",
    "SCB": "bitsandbytes 8 bit",
    "qweight": "nunchaku",
    "wscales": "nunchaku",
    "_weight_qdata": "torchao",
    "_data": "quanto",
    "pre_quant_scale": "AWQ",
    "weight_s_rel": "Comfy W4A8",
    "weight_scalar": "Comfy's hybrid MXFP8",
    "svd_up": "SDNQ",
    "zero_point": "SDNQ",
}
_METHODS: dict[str, Method] = {
    **{f"float8_{kind}{way}": "scaled" for kind in ("e4m3fn", "e5m2") for way in ("", "_rowwise", "_blockwise")},
    "mxfp8": "mxfp8",
    "nvfp4": "nvfp4",
    "int8_tensorwise": "scaled",
    "int8_blockwise": "scaled",
}
_STORED = {"mxfp8": ("F8_E4M3",), "nvfp4": ("U8",)}
_ROTATIONS = (4, 16, 64, 256, 1024)  # powers of four: of no other size there is such a matrix
_DEFAULT_ROTATION = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """One stored weight that takes more than a cast to read; ``scales`` by the attribute's name in its module."""

    weight: StoredTensor
    method: Method
    scales: Mapping[str, StoredTensor] = field(default_factory=dict)
    rotation: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """A part's weights by their names without prefix, and those of them that are quantised.

    ``beside`` are the file's names of markers and scales that no weight is made of.
    """

    weights: Mapping[str, StoredTensor]
    quantised: Mapping[str, Quantised]
    beside: tuple[str, ...]


def read_quantisation(file: WeightFile, part: Part, library: str | None) -> Stored:
    """Tells the part's weights from their scales. Raises InvalidFile for a scale, marker or format that can't be."""
    found = {name: file.tensors[full] for name, full in part.names.items()}
    for name in found:
        _refuse_foreign(file, name)
    markers = markers_of(file, part)
    beside = {name for name in found if _is_beside(name) or name.endswith(_ROOT_MARKER)}
    weights = {name: tensor for name, tensor in found.items() if name not in beside}
    reader = _Reader(file, found, markers, library)
    quantised = {name: each for name, tensor in weights.items() if (each := reader.read(name, tensor)) is not None}
    _check_strays(file, found, markers, weights, beside)
    used = {scale.name for each in quantised.values() for scale in each.scales.values()}
    unused = sorted(found[name].name for name in beside if found[name].name not in used)
    return Stored(weights, quantised, tuple(unused))


@dataclass(frozen=True, slots=True)
class _Reader:
    file: WeightFile
    found: Mapping[str, StoredTensor]
    markers: Mapping[str, Mapping[str, object]]
    library: str | None

    def read(self, name: str, weight: StoredTensor) -> Quantised | None:
        """How the weight is quantised; None for a plain one."""
        if self.file.container == "gguf":
            return self._gguf(weight)
        base = name.removesuffix(".weight")
        marker = self.markers.get(base)
        if marker is not None and name.endswith(".weight"):
            return self._marked(base, weight, marker)
        if weight.format in PLAIN:
            return None
        old, new = (self.found.get(f"{base}.{each}") for each in (_OLD_SCALE, _SCALE))
        if old is not None or new is not None:
            return self._scaled(base, weight, old, new)
        if weight.format in FP8:
            if len(weight.shape) > 1 and self._scales_others():
                self._refuse(weight, f"is {weight.format} without a scale, and others of the file have one")
            return Quantised(weight=weight, method="fp8")
        if weight.format in _BYTES and len(weight.shape) > 1:
            self._refuse(weight, f"is {weight.format} without a scale or a marker that says how to read it")
        if not weight.format.startswith(("I", "U", "BOOL")):  # whole numbers are such as position ids
            self._refuse(weight, f"is stored as {weight.format}, which Roost can't decode")
        return None

    def _gguf(self, weight: StoredTensor) -> Quantised | None:
        if weight.format in PLAIN or weight.format in ("I8", "I16", "I32", "I64"):
            return None
        if weight.format not in GGUF:
            known = ", ".join(GGUF)
            self._refuse(weight, f"is {weight.format}, which diffusers can't decode (it reads {known})")
        return Quantised(weight=weight, method="gguf")

    def _marked(self, base: str, weight: StoredTensor, marker: Mapping[str, object]) -> Quantised:
        name = marker.get("format")
        method = _METHODS.get(name) if isinstance(name, str) else None
        if method is None:
            known = ", ".join(sorted(_METHODS))
            self._refuse(weight, f"has a marker of the format {str(name)[:60]!r}; Roost runs {known}")
        assert isinstance(name, str)
        stored = _STORED.get(method, ("I8",) if name.startswith("int8") else FP8)
        if weight.format not in stored:
            self._refuse(weight, f"is {weight.format}, but its marker says {name}")
        scale = self.found.get(f"{base}.{_SCALE}")
        if scale is None:
            self._refuse(weight, f"has the marker {name} but no {base}.{_SCALE}")
        if method == "scaled":
            self._check_scale(weight, scale)
            return Quantised(
                weight=weight, method=method, scales={_SCALE: scale}, rotation=self._rotation(weight, marker)
            )
        return self._blocks(base, weight, method, scale)

    def _rotation(self, weight: StoredTensor, marker: Mapping[str, object]) -> int:
        if not marker.get("convrot"):
            return 0
        size = marker.get("convrot_groupsize", _DEFAULT_ROTATION)
        if type(size) is not int or size not in _ROTATIONS or len(weight.shape) != 2 or weight.shape[1] % size:
            self._refuse(weight, f"has a marker of a rotation by {str(size)[:20]}, which doesn't fit its columns")
        return size

    def _scaled(self, base: str, weight: StoredTensor, old: StoredTensor | None, new: StoredTensor | None) -> Quantised:
        """A weight beside a scale, without a marker of its own: Comfy's old files, and BFL's."""
        scale = old if old is not None else new
        assert scale is not None
        second, given = self.found.get(f"{base}.{_SCALE_2}"), self.found.get(f"{base}.{_INPUT[0]}")
        if old is None and weight.format == "U8" and second is not None:
            if given is None:
                self._refuse(weight, f"has {_SCALE_2} but no marker and no {_INPUT[0]}: nobody knows its layout")
            return self._bfl_nvfp4(weight, scale, second, given)
        if weight.format not in FP8:
            self._refuse(weight, f"is {weight.format} beside a scale, without a marker that says how to read it")
        self._check_scale(weight, scale)
        if old is None and scale.shape == weight.shape[:1] and self.library == "diffusers":
            return Quantised(weight=weight, method="bfl_fp8r", scales={_SCALE: scale})
        return Quantised(weight=weight, method="scaled", scales={_SCALE: scale})

    def _check_scale(self, weight: StoredTensor, scale: StoredTensor) -> None:
        """A scale is of the whole tensor, of each row, or of each block."""
        if scale.format not in SCALES:
            self._refuse(scale, f"is {scale.format}, and a scale is one of {', '.join(SCALES)}")
        if scale_kind(weight.shape, scale.shape) is None:
            self._refuse(
                scale, f"has shape {_words(scale.shape)}, which fits no weight of shape {_words(weight.shape)}"
            )

    def _blocks(self, base: str, weight: StoredTensor, method: Method, scale: StoredTensor) -> Quantised:
        rows, columns = self._matrix(weight, packed=method == "nvfp4")
        size, formats = (16, ("F8_E4M3",)) if method == "nvfp4" else (32, ("U8", "F8_E8M0"))
        if scale.format not in formats:
            self._refuse(scale, f"is {scale.format}, and a scale of {method} is {' or '.join(formats)}")
        if columns % size:
            self._refuse(weight, f"has {columns} columns, which {method}'s blocks of {size} don't divide")
        tiles = _up(rows, 128) * _up(columns // size, 4)
        if _count(scale) != tiles:
            self._refuse(scale, f"has shape {_words(scale.shape)}, but {rows}x{columns} weights take {tiles} scales")
        if method == "mxfp8":
            return Quantised(weight=weight, method=method, scales={_SCALE: scale})
        second = self.found.get(f"{base}.{_SCALE_2}")
        if second is None:
            self._refuse(weight, f"has the marker nvfp4 but no {base}.{_SCALE_2}")
        self._check_single(second)
        return Quantised(weight=weight, method=method, scales={_SCALE: scale, _SCALE_2: second})

    def _bfl_nvfp4(
        self, weight: StoredTensor, scale: StoredTensor, second: StoredTensor, given: StoredTensor
    ) -> Quantised:
        rows, columns = self._matrix(weight, packed=True)
        if scale.format != "F8_E4M3" or scale.shape != (rows, columns // 16):
            wanted = _words((rows, columns // 16))
            self._refuse(scale, f"is {scale.format} of shape {_words(scale.shape)}, not F8_E4M3 of shape {wanted}")
        for each in (second, given):
            self._check_single(each)
        scales = {_SCALE: scale, _SCALE_2: second, _INPUT[0]: given}
        return Quantised(weight=weight, method="bfl_nvfp4", scales=scales)

    def _check_single(self, scale: StoredTensor) -> None:
        if scale.format != "F32" or _count(scale) != 1:
            self._refuse(scale, f"is {scale.format} of shape {_words(scale.shape)}, not one F32")

    def _matrix(self, weight: StoredTensor, *, packed: bool) -> tuple[int, int]:
        """Rows and columns of the weight's values; where a byte holds two, its header may count either."""
        if len(weight.shape) != 2:
            self._refuse(weight, f"has shape {_words(weight.shape)}, and only matrices are stored so")
        rows, columns = weight.shape
        return rows, columns * 2 if packed and weight.bytes == rows * columns else columns

    def _scales_others(self) -> bool:
        return any(name.endswith((_ROOT_MARKER, f".{_OLD_SCALE}", f".{_SCALE}")) for name in self.found)

    def _refuse(self, tensor: StoredTensor, why: str) -> NoReturn:
        raise InvalidFile(f"{self.file.path}: {tensor.name} {why}.")


def scale_kind(weight: tuple[int, ...], scale: tuple[int, ...]) -> str | None:
    """Whether a scale is of the ``tensor``, of each ``row`` or of each ``block``; None where it fits none of these."""
    count = 1
    for size in scale:
        count *= size
    if count == 1:
        return "tensor"
    if scale[0] == weight[0] == count:
        return "row"
    return "block" if len(weight) == len(scale) == 2 and block_of(weight, scale) is not None else None


def block_of(weight: tuple[int, ...], scale: tuple[int, ...]) -> tuple[int, int] | None:
    """The rows and columns of a block; the last block of either may be smaller where blocks are 128 wide."""
    if scale == (-(-weight[0] // 128), -(-weight[1] // 128)):
        return 128, 128
    if 0 in scale or weight[0] % scale[0] or weight[1] % scale[1]:
        return None
    return weight[0] // scale[0], weight[1] // scale[1]


def _is_beside(name: str) -> bool:
    return name.rpartition(".")[2] in _BESIDE


def _refuse_foreign(file: WeightFile, name: str) -> None:
    for last in name.split(".")[-2:]:
        for mark, whose in _FOREIGN.items():
            if last == mark or (mark[0] == "_" and last.endswith(mark)):
                raise InvalidFile(
                    f"{file.path}: {name} is of a {whose} file, which Roost doesn't read; take the model as GGUF,"
                    " scaled fp8 or plain."
                )


def _check_strays(
    file: WeightFile,
    found: Mapping[str, StoredTensor],
    markers: Mapping[str, object],
    weights: Mapping[str, StoredTensor],
    beside: set[str],
) -> None:
    """InvalidFile for a scale or marker whose weight isn't there."""
    for name in _bases(beside):
        if f"{name}.weight" not in weights:
            raise InvalidFile(f"{file.path}: there is a scale or marker of {name}, but no {name}.weight.")
    for name in markers:
        if f"{name}.weight" not in weights and any(each.startswith(f"{name}.") for each in found):
            raise InvalidFile(f"{file.path}: there is a marker of {name}, but no {name}.weight.")


def _bases(beside: set[str]) -> Iterator[str]:
    for name in sorted(beside):
        if _is_beside(name) and "." in name:
            yield name.rpartition(".")[0]


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _count(tensor: StoredTensor) -> int:
    count = 1
    for size in tensor.shape:
        count *= size
    return count


def _words(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"
