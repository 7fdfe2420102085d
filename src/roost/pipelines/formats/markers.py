"""Comfy's markers: what a file says of how its layers are quantised, beside them or in its metadata. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping

from roost.errors import InvalidFile
from roost.facts.weight_files import WeightFile
from roost.pipelines.formats.parts import Part

MARKER = "comfy_quant"
_SCALE = "weight_scale"
_LAYERS, _FORMAT = "_quantization_metadata", "quant_format"


def markers_of(file: WeightFile, part: Part) -> dict[str, Mapping[str, object]]:
    """What markers say of each module, by its name without prefix."""
    found: dict[str, Mapping[str, object]] = {}
    for base, entry in _metadata_layers(file).items():
        found[base.removeprefix(part.prefix)] = entry
    for name, full in part.names.items():
        if name.endswith(f".{MARKER}"):
            found[name.removesuffix(f".{MARKER}")] = _marker(file, full)
    kind = file.metadata.get(_FORMAT)
    if isinstance(kind, str):
        for name in part.names:
            if name.endswith(f".{_SCALE}"):
                found.setdefault(name.removesuffix(f".{_SCALE}"), {"format": kind})
    return found


def _metadata_layers(file: WeightFile) -> Mapping[str, Mapping[str, object]]:
    text = file.metadata.get(_LAYERS)
    if text is None:
        return {}
    try:
        layers = json.loads(str(text))["layers"]
    except (ValueError, KeyError, TypeError, RecursionError):
        layers = None
    if not isinstance(layers, dict) or not all(isinstance(each, dict) for each in layers.values()):
        raise InvalidFile(f"{file.path}: its metadata's {_LAYERS} isn't what Comfy writes.")
    return layers


def _marker(file: WeightFile, full: str) -> Mapping[str, object]:
    content = file.small.get(full)
    if content is None:
        raise InvalidFile(f"{file.path}: the marker {full} is larger than a marker can be.")
    try:
        marker = json.loads(content)
    except (ValueError, RecursionError):
        marker = None
    if not isinstance(marker, dict):
        raise InvalidFile(f"{file.path}: the marker {full} isn't the JSON object that Comfy writes.")
    return marker
