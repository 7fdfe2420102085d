"""How a component's weights are decoded, by how its file quantises them: a method for each format that runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from roost.errors import InvalidFile
from roost.facts.weight_files import FileWeights, Method, QuantisedWeight, ScaleKind, StoredTensor, WeightFile
from roost.facts.weight_formats import GGUF_RUN, PLAIN_FORMATS, weight_format
from roost.pipelines.formats.parts import Part

_SCALE, _SCALE_2, _INPUT = "weight_scale", "weight_scale_2", "input_scale"
# What their modules call the tensors of a weight, by the end of a name in a file.
_ATTRIBUTES = {"scale_weight": _SCALE, _SCALE: _SCALE, _SCALE_2: _SCALE_2}
# Ends of names that only stand beside weights; the scales of activations among them.
_BESIDE = (*_ATTRIBUTES, _INPUT, "scale_input", "comfy_quant")
# Ends of names that only files of other loaders have.
_FOREIGN = {
    **dict.fromkeys(("absmax", "quant_map", "SCB"), "bitsandbytes"),
    **dict.fromkeys(("qweight", "wscales"), "nunchaku"),
    **dict.fromkeys(("svd_up", "zero_point"), "SDNQ"),
    "_weight_qdata": "torchao",
    "_data": "quanto",
}
# Of the formats that run; rows of fp8 that diffusers has a layer for are told apart below.
_METHODS: Mapping[str, Method] = {
    **dict.fromkeys(GGUF_RUN, "gguf"),
    **dict.fromkeys(("comfy-fp8-scaled", "bfl-fp8r", "float8_e4m3fn", "float8_e5m2"), "scaled"),
    **dict.fromkeys(("float8_e4m3fn_rowwise", "float8_e4m3fn_blockwise"), "scaled"),
    **dict.fromkeys(("int8_tensorwise", "int8_tensorwise+convrot", "int8_blockwise"), "scaled"),
    "float8-cast": "fp8",
    "mxfp8": "mxfp8",
    "nvfp4": "nvfp4",
    "bfl-nvfp4": "bfl_nvfp4",
}
_BLOCKS = {"mxfp8": 32, "nvfp4": 16, "bfl_nvfp4": 16}  # values of a row with one scale
_TILE_ROWS, _TILE_COLUMNS = 128, 4  # of Comfy's scales of blocks, which lie in tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """One stored weight that takes more than a cast to read; ``scales`` by the attribute's name in its module.

    ``shape`` is of its values, ``kind`` of its scale.
    """

    weight: StoredTensor
    shape: tuple[int, ...]
    method: Method
    kind: ScaleKind | None = None
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


def read_quantisation(file: WeightFile, part: Part, weights: FileWeights, library: str | None) -> Stored:
    """Tells the part's weights from their scales. Raises InvalidFile for a format that doesn't run."""
    own = {each.name: each for each in weights.quantised.values()}
    taken = {name for each in own.values() for name in each.parts[1:]}.union(weights.asides)
    found = {name: file.tensors[full] for name, full in part.names.items()}
    beside = {name for name, each in found.items() if each.name in taken or name.rpartition(".")[2] in _BESIDE}
    plain = {name: each for name, each in found.items() if name not in beside}
    reader = _Reader(file, library)
    for name, tensor in plain.items():
        reader.check(name, tensor)
    read = ((name, reader.read(own[each.name])) for name, each in plain.items() if each.name in own)
    quantised = {name: each for name, each in read if each is not None}
    _check_strays(file, plain, beside)
    used = {scale.name for each in quantised.values() for scale in each.scales.values()}
    unused = sorted(found[name].name for name in beside if found[name].name not in used)
    return Stored(plain, quantised, tuple(unused))


@dataclass(frozen=True, slots=True)
class _Reader:
    file: WeightFile
    library: str | None

    def check(self, name: str, tensor: StoredTensor) -> None:
        """InvalidFile for what nobody here decodes: whole numbers are such as position ids."""
        for last in name.split(".")[-2:]:
            whose = _FOREIGN.get(last)
            if whose is not None:
                self._refuse(tensor, f"is of a {whose} file, which Roost doesn't read")
        known = tensor.format in PLAIN_FORMATS - {"C64"} or tensor.format in GGUF_RUN
        if not known and tensor.format not in ("F8_E4M3", "F8_E5M2"):
            self._refuse(tensor, f"is stored as {tensor.format}, which Roost can't decode")

    def read(self, found: QuantisedWeight) -> Quantised | None:
        """How the weight is decoded; None for plain values."""
        weight = self.file.tensors[found.parts[0]]
        if found.problem is not None:
            raise InvalidFile(f"{self.file.path}: {found.problem}.")
        if found.format in PLAIN_FORMATS:
            return None
        method = _METHODS.get(found.format)
        if method is None:
            said = weight_format(found.format)
            why = f"which {said.why or 'Roost reads from directories alone'}; {said.instead or 'give that'} would work"
            self._refuse(weight, f"is {said.title}, {why}")
        ends = {name.rpartition(".")[2]: self.file.tensors[name] for name in found.parts[1:]}
        scales = {_ATTRIBUTES[end]: each for end, each in ends.items() if end in _ATTRIBUTES}
        if method == "bfl_nvfp4":
            scales[_INPUT] = ends[_INPUT]
        if found.format == "bfl-fp8r" and self.library == "diffusers" and scales[_SCALE].shape == weight.shape[:1]:
            method = "bfl_fp8r"
        if method in _BLOCKS:
            self._check_blocks(found, method, scales)
        return Quantised(
            weight=weight,
            shape=found.shape,
            method=method,
            kind=found.scale,
            scales=scales,
            rotation=self._rotation(found, weight),
        )

    def _rotation(self, found: QuantisedWeight, weight: StoredTensor) -> int:
        size = found.marker.rotated_by if found.marker is not None else None
        if size is not None and (len(found.shape) != 2 or found.shape[1] % size):
            self._refuse(weight, f"has a marker of a rotation by {size}, which doesn't fit its columns")
        return size or 0

    def _check_blocks(self, found: QuantisedWeight, method: Method, scales: Mapping[str, StoredTensor]) -> None:
        """Only matrices of whole blocks; Comfy's scales in whole tiles, BFL's one for each block."""
        weight, scale, size = self.file.tensors[found.parts[0]], scales[_SCALE], _BLOCKS[method]
        if len(found.shape) != 2:
            self._refuse(weight, f"has shape {_words(found.shape)}, and only matrices are stored so")
        rows, columns = found.shape
        if columns % size:
            self._refuse(weight, f"has {columns} columns, which {method}'s blocks of {size} don't divide")
        wanted = (rows, columns // size)
        if method != "bfl_nvfp4":
            wanted = (_up(rows, _TILE_ROWS), _up(columns // size, _TILE_COLUMNS))
        if _count(scale.shape) != _count(wanted) or (method == "bfl_nvfp4" and scale.shape != wanted):
            shape = _words(scale.shape)
            self._refuse(scale, f"has shape {shape}, but {rows}x{columns} weights take {_words(wanted)} scales")
        for name, each in scales.items():
            if name != _SCALE and (each.format != "F32" or _count(each.shape) != 1):
                self._refuse(each, f"is {each.format} of shape {_words(each.shape)}, not one F32")

    def _refuse(self, tensor: StoredTensor, why: str) -> NoReturn:
        raise InvalidFile(f"{self.file.path}: {tensor.name} {why}.")


def block_of(weight: tuple[int, ...], scale: tuple[int, ...]) -> tuple[int, int] | None:
    """The rows and columns of a block, None where they can't be told.

    The last block of either may be smaller where blocks are 128 wide.
    """
    if scale == (-(-weight[0] // 128), -(-weight[1] // 128)):
        return 128, 128
    if 0 in scale or weight[0] % scale[0] or weight[1] % scale[1]:
        return None
    return weight[0] // scale[0], weight[1] // scale[1]


def _check_strays(file: WeightFile, weights: Mapping[str, StoredTensor], beside: set[str]) -> None:
    """InvalidFile for a scale or marker whose weight isn't there."""
    for name in _bases(beside):
        if f"{name}.weight" not in weights:
            raise InvalidFile(f"{file.path}: there is a scale or marker of {name}, but no {name}.weight.")


def _bases(beside: set[str]) -> Iterator[str]:
    for name in sorted(beside):
        base, _, end = name.rpartition(".")
        if base and end in _BESIDE:
            yield base


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _words(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"
