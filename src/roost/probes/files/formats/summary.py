"""What a whole file's formats come to: the method's name, tensors and bytes of each, bits a weight, what is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from roost.facts.weight_files import FileWeights, WeightFile
from roost.facts.weight_formats import formats_that_stop
from roost.probes.files.formats.layouts import FP8
from roost.probes.files.formats.weights import CAST, UNKNOWN, quantised_weights
from roost.probes.files.header_entries import Sizes
from roost.probes.files.quantised import method_of

# Tables that are looked up, not multiplied with: they are no linear weights.
_LOOKED_UP = re.compile(
    r"(^|\.)(shared|embed_tokens|token_embd|token_embedding|position_embedding|relative_attention_bias|attn_rel_b)"
    r"\.weight$"
)
_FLOATS = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}
_SHOWN_FORMATS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """``method`` is None for plain weights; ``detail`` is JSON. ``problems`` are what ``plan`` must refuse.

    ``bytes_by_format`` counts scales to their weights. ``bits_per_weight`` are of all linear weights with their
    scales, None where there are none. ``shapes`` are of the values of each of the model's tensors, by their own names.
    """

    method: str | None
    detail: Mapping[str, object] | None
    bytes_by_format: Mapping[str, int]
    bits_per_weight: float | None
    problems: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def formats(self) -> tuple[str, ...]:
        """Every format there is, plain dtypes too."""
        return tuple(self.bytes_by_format)

    @property
    def runs(self) -> bool:
        """Whether every format of the file is run as stored, from that file."""
        return not self.problems and not formats_that_stop(self.formats)

    def why_not(self, *, in_directory: bool = False) -> str | None:
        """Why this version can't run such a file, and what would work instead; None where it can."""
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            return f"{self.problems[0]}{more}; fetch the file that its publisher lists, or a GGUF or plain one"
        stopping = formats_that_stop(self.formats, in_directory=in_directory)
        if not stopping:
            return None
        return f"{stopping[0].title} {stopping[0].why}; what would work: {stopping[0].instead}"


def sizes_of(file: WeightFile) -> Sizes:
    """Bytes by tensor for each stored format."""
    found: dict[str, dict[str, int]] = {}
    for name, each in file.tensors.items():
        found.setdefault(each.format, {})[name] = each.bytes
    return found


def quantisation_of(file: WeightFile, where: str) -> Quantisation:
    """How the file's weights are stored; InvalidFile for markers, metadata or scales that are malformed."""
    weights = quantised_weights(file, where)
    formats = _by_format(file, weights)
    return Quantisation(
        method=_method(file, weights),
        detail=_detail(formats, weights) if weights.quantised or weights.asides else None,
        bytes_by_format={key: formats[key].bytes for key in sorted(formats)},
        bits_per_weight=_bits_per_weight(file, weights),
        problems=tuple(each.problem for each in weights.quantised.values() if each.problem is not None),
        shapes=_shapes(file, weights),
    )


def _method(file: WeightFile, weights: FileWeights) -> str | None:
    found = {each.format for each in weights.quantised.values()}
    if file.container == "gguf":
        return "gguf" if found else None
    if found == {CAST}:
        return CAST
    marked = sorted({each.marker.key for each in weights.quantised.values() if each.marker is not None})
    if marked:
        return f"comfy-quant {'+'.join(marked[:_SHOWN_FORMATS])}"
    metadata = {key: str(value) for key, value in file.metadata.items()}
    method = method_of(sizes_of(file), metadata)
    if found <= {CAST, UNKNOWN}:
        return method or ("unknown" if UNKNOWN in found else None)
    return method if method and not method.endswith(" codes") else "+".join(sorted(found - {CAST}))


@dataclass(slots=True)
class _Tally:
    tensors: int = 0
    bytes: int = 0
    elements: int = 0
    scales: frozenset[str] = frozenset()
    rotated_by: frozenset[int] = frozenset()
    full_precision_matmul: int = 0


def _by_format(file: WeightFile, weights: FileWeights) -> dict[str, _Tally]:
    """What there is of each format, plain dtypes too; scales count to their weights."""
    tallies: dict[str, _Tally] = {}
    parts = set(weights.asides)
    for each in weights.quantised.values():
        tally = tallies.setdefault(each.format, _Tally())
        tally.tensors += 1
        tally.bytes += _bytes(file, each.parts)
        tally.elements += math.prod(each.shape)
        tally.scales |= frozenset() if each.scale is None else {each.scale}
        if each.marker is not None:
            tally.rotated_by |= frozenset() if each.marker.rotated_by is None else {each.marker.rotated_by}
            tally.full_precision_matmul += each.marker.full_precision_matmul
        parts.update(each.parts)
    for name, tensor in file.tensors.items():
        if name not in parts:
            tally = tallies.setdefault(CAST if tensor.format in FP8 else tensor.format, _Tally())
            tally.tensors += 1
            tally.bytes += tensor.bytes
            tally.elements += math.prod(tensor.shape)
    return tallies


def _detail(formats: Mapping[str, _Tally], weights: FileWeights) -> dict[str, object]:
    whole = {"full_precision_matmul": True} if weights.full_precision_matmul else {}
    return {"formats": {key: _described(formats[key]) for key in sorted(formats)}, **whole}


def _described(tally: _Tally) -> dict[str, object]:
    found: dict[str, object] = {"tensors": tally.tensors, "bytes": tally.bytes}
    if tally.elements:
        found["bits_per_weight"] = round(8 * tally.bytes / tally.elements, 3)
    if tally.scales:
        found["scales"] = sorted(tally.scales)
    if tally.rotated_by:
        found["convrot_groupsize"] = sorted(tally.rotated_by)
    if tally.full_precision_matmul:
        found["full_precision_matmul"] = tally.full_precision_matmul
    return found


def _bytes(file: WeightFile, names: Iterable[str]) -> int:
    return sum(file.tensors[name].bytes for name in names)


def _bits_per_weight(file: WeightFile, weights: FileWeights) -> float | None:
    stored_bytes = elements = 0
    taken = {part for each in weights.quantised.values() for part in each.parts}
    for each in weights.quantised.values():
        if is_linear(each.name, each.shape):
            stored_bytes += _bytes(file, each.parts)
            elements += math.prod(each.shape)
    for name, tensor in file.tensors.items():
        if name not in taken and tensor.format in _FLOATS and is_linear(name, tensor.shape):
            stored_bytes += tensor.bytes
            elements += math.prod(tensor.shape)
    return round(8 * stored_bytes / elements, 3) if elements else None


def is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is the weight of a linear layer, by its name and shape."""
    return name.endswith(".weight") and len(shape) == 2 and _LOOKED_UP.search(name) is None


def _shapes(file: WeightFile, weights: FileWeights) -> dict[str, tuple[int, ...]]:
    """Of the model's own tensors: scales and markers aren't any."""
    parts = {part for each in weights.quantised.values() for part in each.parts}.union(weights.asides)
    plain = {name: each.shape for name, each in file.tensors.items() if name not in parts}
    return plain | {each.name: each.shape for each in weights.quantised.values()}
