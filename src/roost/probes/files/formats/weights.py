"""Each quantised weight of a file: its format, its shape, the tensors that belong to it, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NoReturn

from roost.errors import InvalidFile
from roost.facts.weight_files import FileWeights, Marker, QuantisedWeight, ScaleKind, StoredTensor, WeightFile
from roost.probes.files.formats.layouts import BYTES, FP8, MARKED, SMOOTHING, UNMARKED, Layout
from roost.probes.files.formats.markers import COMFY_QUANT, QUANT_STATE, Markers, read_markers, read_state_shape
from roost.probes.files.formats.scales import scale_kind
from roost.probes.files.formats.torchao import OTHER, torchao_weight
from roost.probes.files.gguf.ggml_types import GGML_BY_NAME
from roost.probes.files.safe_files import quoted, shown

CAST, UNKNOWN = "float8-cast", "unknown codes"
WHOLE_FILE_MARKER = "scaled_fp8"
_CODES = FP8 | BYTES | {"I32", "U16", "I16", "U32", "F4", "F6_E2M3", "F6_E3M2"}
_ENDS = tuple(dict.fromkeys(each.codes for each in (*UNMARKED, *MARKED.values())))
_WEIGHT = ".weight"


def quantised_weights(file: WeightFile, where: str) -> FileWeights:
    """All quantised weights of a file; InvalidFile for markers and scales that can't be read."""
    if file.container == "gguf":
        packed = (each for each in file.tensors.values() if _is_packed(each))
        found = {
            each.name: QuantisedWeight(name=each.name, format=each.format, shape=each.shape, parts=(each.name,))
            for each in packed
        }
        return FileWeights(quantised=found, asides=())
    markers = read_markers(file, where)
    whole = [each for name, each in file.tensors.items() if name.rpartition(".")[2] == WHOLE_FILE_MARKER]
    reader = _Reader(file, markers, where, scaled=bool(whole))
    asides = [each.name for each in whole]
    asides += [name for name in file.tensors if name.endswith(f".{COMFY_QUANT}")]
    for each in whole:
        reader.check_whole(each)
    return FileWeights(
        quantised={each.name: each for each in reader.weights()},
        asides=tuple(asides),
        full_precision_matmul=any(each.shape == (2,) for each in whole),
    )


def _is_packed(tensor: StoredTensor) -> bool:
    """BF16 counts: diffusers keeps it packed too."""
    return tensor.format == "BF16" or GGML_BY_NAME[tensor.format].is_packed


class _Reader:
    """Looks at each tensor that may hold codes, with what stands beside it."""

    def __init__(self, file: WeightFile, markers: Markers, where: str, *, scaled: bool) -> None:
        self._tensors, self._small, self._markers, self._where = file.tensors, file.small, markers, where
        self._is_scaled = scaled or bool(markers)
        self._file = file

    def check_whole(self, marker: StoredTensor) -> None:
        """Of the old kind: nothing or two elements, of a float."""
        if marker.shape not in ((0,), (2,), (1,), ()) or marker.format not in FP8 | {"F32", "F16", "BF16"}:
            shape = f"{marker.format} of the shape {list(marker.shape)}"
            self._reject(f"marker {quoted(marker.name)} is {shape}, where an empty float must stand")

    def weights(self) -> Iterator[QuantisedWeight]:
        """Marked layers first, then what names and dtypes tell, then codes that nothing explains."""
        marked = set(self._markers.by_layer)
        for layer in self._markers.by_layer:
            yield self._marked(layer, self._markers.by_layer[layer])
        plain: list[StoredTensor] = []
        some_scaled = self._is_scaled
        for name, tensor in self._tensors.items():
            end = next((each for each in _ENDS if name.endswith(each)), None)
            if end is None or (tensor.format not in _CODES and end == _WEIGHT):
                continue
            layer = name[: -len(end)]
            if layer in marked:
                continue
            found = self._unmarked(layer, end, tensor)
            if found is None:
                plain.append(tensor)
            else:
                some_scaled = True
                yield found
        for tensor in plain:
            yield from self._unexplained(tensor, some_scaled)

    def _marked(self, layer: str, marker: Marker) -> QuantisedWeight:
        layout, name = MARKED.get(marker.format), f"{layer}{_WEIGHT}"
        codes = self._tensors.get(name)
        if codes is None:
            self._reject(f"a marker stands for {quoted(layer)}, which has no weight")
        if layout is None:
            parts = (name, *(each for each in self._beside(layer)))
            return QuantisedWeight(name=name, format=marker.key, shape=codes.shape, parts=parts, marker=marker)
        if codes.format not in layout.dtypes:
            if codes.format in ("BF16", "F16", "F32"):
                self._reject(f"{quoted(name)} is {codes.format} and its marker says {marker.format}")
            self._reject(f"{quoted(name)} holds {codes.format}, which {marker.format} doesn't")
        return self._made(layer, layout, codes, marker)

    def _unmarked(self, layer: str, end: str, codes: StoredTensor) -> QuantisedWeight | None:
        if self._markers.whole is not None and end == _WEIGHT:
            layout = MARKED.get(self._markers.whole)
            if layout is not None and codes.format in layout.dtypes and self._has_all(layer, layout):
                return self._made(layer, layout, codes, Marker(format=self._markers.whole))
        for layout in UNMARKED:
            fits = layout.codes == end and (not layout.dtypes or codes.format in layout.dtypes)
            if fits and self._has_all(layer, layout):
                return self._made(layer, layout, codes, None)
        return None

    def _has_all(self, layer: str, layout: Layout) -> bool:
        return all(
            (each := self._tensors.get(f"{layer}{end}")) is not None and (not dtypes or each.format in dtypes)
            for end, dtypes in layout.needs.items()
        )

    def _made(self, layer: str, layout: Layout, codes: StoredTensor, marker: Marker | None) -> QuantisedWeight:
        shape = self._shape(layer, layout, codes)
        lacking = [end for end in layout.needs if f"{layer}{end}" not in self._tensors]
        ends = [end for end in (*layout.needs, *layout.may) if f"{layer}{end}" in self._tensors]
        kind = None if lacking else self._scale(layer, layout, shape)
        problem = f"{quoted(codes.name)} has no {lacking[0].lstrip('.')}" if lacking else None
        if f"{layer}{SMOOTHING}" in self._tensors:
            problem = f"{quoted(codes.name)} has a {SMOOTHING.lstrip('.')}, as AWQ writes, which nothing here applies"
        name = codes.name if layout.codes == _WEIGHT else f"{layer}{_WEIGHT}"
        said = torchao_weight(self._file, name, self._where) if layout.format.startswith(OTHER) else None
        return QuantisedWeight(
            name=name,
            format=(said.format if said else None) or (layout.format if marker is None else marker.key),
            shape=shape,
            parts=(codes.name, *(f"{layer}{end}" for end in ends)),
            scale=kind,
            marker=marker,
            problem=problem,
        )

    def _shape(self, layer: str, layout: Layout, codes: StoredTensor) -> tuple[int, ...]:
        """Of the values."""
        state = next((f"{layer}{end}" for end in layout.needs if QUANT_STATE in end), None)
        if state is not None:
            shape = read_state_shape(self._small.get(state), self._where, state)
            if math.prod(shape) != layout.packed * math.prod(codes.shape):
                self._reject(
                    f"{quoted(state)} says the shape {list(shape)}, and {quoted(codes.name)} holds other codes"
                )
            return shape
        if layout.packed > 1 and codes.shape and codes.format != "F4":
            return (*codes.shape[:-1], codes.shape[-1] * layout.packed)
        return codes.shape

    def _scale(self, layer: str, layout: Layout, shape: tuple[int, ...]) -> ScaleKind | None:
        """Of the formats that this version knows how to apply; the dtype and shape must be right."""
        end = next((each for each in (".scale_weight", ".weight_scale") if each in layout.needs), None)
        if end is None:
            return None
        scale, dtypes = self._tensors[f"{layer}{end}"], layout.needs[end]
        if dtypes and scale.format not in dtypes:
            self._reject(
                f"{quoted(scale.name)} is {scale.format}, and {layout.format} needs {' or '.join(sorted(dtypes))}"
            )
        kind = scale_kind(layout.format, shape, scale)
        if kind is None:
            shapes = f"{list(scale.shape)} for a weight of {list(shape)}"
            self._reject(f"{quoted(scale.name)} has the shape {shapes}, which {layout.format} hasn't")
        second = self._tensors.get(f"{layer}.weight_scale_2") if ".weight_scale_2" in layout.needs else None
        if second is not None and second.shape not in ((), (1,)):
            self._reject(f"{quoted(second.name)} has the shape {list(second.shape)}, where a single number must stand")
        return kind

    def _unexplained(self, tensor: StoredTensor, some_scaled: bool) -> Iterator[QuantisedWeight]:
        """Codes of no method. Plain casts to 8-bit floats are all right where nothing in the file has scales."""
        if tensor.format in FP8:
            layer = tensor.name.removesuffix(_WEIGHT)
            beside = [name for name in self._beside(layer) if "scale" in name[len(layer) :]]
            is_cast = not beside and (not some_scaled or len(tensor.shape) < 2)
            lack = "has scales of no known method" if beside else "has no scale, and others of this file have theirs"
            problem = None if is_cast else f"{quoted(tensor.name)} is {tensor.format} and {lack}"
            yield QuantisedWeight(
                name=tensor.name,
                format=CAST if is_cast else UNKNOWN,
                shape=tensor.shape,
                parts=(tensor.name, *beside),
                problem=problem,
            )
        elif tensor.name.endswith(_WEIGHT):
            problem = (
                f"{quoted(tensor.name)} holds {tensor.format} codes without the scales or marker of a known method"
            )
            yield QuantisedWeight(
                name=tensor.name, format=UNKNOWN, shape=tensor.shape, parts=(tensor.name,), problem=problem
            )

    def _beside(self, layer: str) -> list[str]:
        """Names of what else belongs to the layer, but for its weight, bias and marker."""
        ends = (
            "weight_scale",
            "weight_scale_2",
            "scale_weight",
            "scale",
            "zero_point",
            "weight_scale_inv",
            "input_scale",
        )
        return [name for name in (f"{layer}.{end}" for end in ends) if name in self._tensors]

    def _reject(self, reason: str) -> NoReturn:
        raise InvalidFile(f"{shown(self._where)} can't be read as it is quantised: {reason}. Fetch that file again.")
