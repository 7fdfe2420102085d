"""ComfyUI's markers: what a file says of how each of its layers is quantised, in tensors or in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from roost.errors import InvalidFile
from roost.facts.weight_files import Marker, WeightFile
from roost.probes.files.safe_files import quoted, shown
from roost.probes.files.strict_json import config_decoder, decode_strict, parse_strict

COMFY_QUANT = "comfy_quant"
QUANT_STATE = ".quant_state."
LAYERS_KEY, FORMAT_KEY = "_quantization_metadata", "quant_format"
_GROUP_SIZES = (16, 64, 256)
_LONGEST_WORD = 60
_AGAIN = "Fetch that file again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Markers:
    """By layer; ``whole`` is what is said of every layer with scales that has none of its own."""

    by_layer: Mapping[str, Marker]
    whole: str | None = None

    def __bool__(self) -> bool:
        return bool(self.by_layer) or self.whole is not None


def read_markers(file: WeightFile, where: str) -> Markers:
    """All markers of a file; InvalidFile for one that can't be read, or two that differ."""
    found = _from_metadata(file.metadata.get(LAYERS_KEY), where)
    for name, each in file.tensors.items():
        layer, _, end = name.rpartition(".")
        if end != COMFY_QUANT:
            continue
        what = f"marker {quoted(name)}"
        if each.format != "U8" or len(each.shape) != 1 or name not in file.small:
            _reject(where, f"{what} must be a short list of bytes, not {each.format} of {each.bytes} bytes")
        marker = _marker(read_object(file.small[name], where, what), where, what)
        if found.get(layer, marker) != marker:
            _reject(where, f"{what} says {quoted(marker.key)} where the metadata say {quoted(found[layer].key)}")
        found[layer] = marker
    whole = file.metadata.get(FORMAT_KEY)
    return Markers(by_layer=found, whole=None if whole is None else _word(whole, where, FORMAT_KEY))


def read_state_shape(raw: bytes | None, where: str, name: str) -> tuple[int, ...]:
    """The shape that bitsandbytes' state of a 4-bit weight says; InvalidFile for a state that says none."""
    what = f"state {quoted(name)}"
    shape = read_object(raw or b"", where, what).get("shape")
    if type(shape) is not list or not all(type(each) is int and 0 <= each < 2**40 for each in shape) or len(shape) > 8:
        _reject(where, f"{what} has no shape")
    return tuple(shape)


def _from_metadata(text: object, where: str) -> dict[str, Marker]:
    if text is None:
        return {}
    said = read_object(str(text).encode("utf-8", "surrogatepass"), where, LAYERS_KEY)
    layers = said.get("layers")
    if type(layers) is not dict:
        _reject(where, f"{LAYERS_KEY} has no object of layers")
    return {name: _marker(each, where, f"{LAYERS_KEY} of layer {quoted(name)}") for name, each in layers.items()}


def read_object(raw: bytes, where: str, what: str) -> dict[str, Any]:
    """A JSON object of a header; InvalidFile, naming ``what`` it is, for anything else."""

    def reject(reason: str) -> NoReturn:
        _reject(where, f"{what} isn't valid JSON: {reason}")

    value = parse_strict(decode_strict(raw, reject), reject, decoder=config_decoder(infinities=False))
    if type(value) is not dict:
        _reject(where, f"{what} must be an object")
    return value


def _marker(said: object, where: str, what: str) -> Marker:
    if type(said) is not dict:
        _reject(where, f"{what} must be an object")
    rotated, size = said.get("convrot", False), said.get("convrot_groupsize", _GROUP_SIZES[-1])
    full = said.get("full_precision_matrix_mult", False)
    if type(rotated) is not bool or type(full) is not bool:
        _reject(where, f"{what} has a switch that is neither true nor false")
    if type(size) is not int or size not in _GROUP_SIZES:
        _reject(where, f"{what} is rotated in groups of {quoted(size)}, which is none of {_GROUP_SIZES}")
    word = _word(said.get("format"), where, what)
    rotated = rotated or word.startswith("convrot")
    return Marker(format=word, rotated_by=size if rotated else None, full_precision_matmul=full)


def _word(value: object, where: str, what: str) -> str:
    if type(value) is not str or not value or len(value) > _LONGEST_WORD:
        _reject(where, f"{what} names no format")
    if not value.isascii() or not value.replace("_", "a").replace("-", "a").isalnum():
        _reject(where, f"{what} names the format {quoted(value)}, which is no word")
    return value


def _reject(where: str, reason: str) -> NoReturn:
    raise InvalidFile(f"{shown(where)} can't be read as it is quantised: {reason}. {_AGAIN}")
