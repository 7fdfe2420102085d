"""Inspecting single files of weights: what each is, how it is stored, and its JSON object."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from roost.facts.model import ClassFacts, Component
from roost.facts.weight_files import WeightFile
from roost.probes.files.formats.directories import as_one
from roost.probes.files.formats.summary import Quantisation, quantisation_of, sizes_of
from roost.probes.files.formats.weights import CAST
from roost.probes.files.safe_files import starts_with
from roost.probes.files.weights import read_weight_file
from roost.probes.model.hub import is_path
from roost.probes.model.load_sizes import check_load_dtype, default_load_dtype, size_as_loaded
from roost.probes.recognition.known import KnownLayouts
from roost.probes.recognition.weights import FileContent, recognise_weights
from roost.profiles.class_facts import load_class_facts
from roost.profiles.layouts import known_layouts

WEIGHT_SUFFIXES = (".safetensors", ".sft", ".gguf")
_GGUF = b"GGUF"
_MOST_PROBLEMS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedFile:
    """One file of weights: its header, what it is, how it is stored and what it will occupy."""

    file: WeightFile
    content: FileContent
    quantisation: Quantisation
    load_bytes: int

    @property
    def stored_bytes(self) -> int:
        """Of all tensors, without the header."""
        return sum(each.bytes for each in self.file.tensors.values())

    @property
    def warnings(self) -> tuple[str, ...]:
        problems = self.quantisation.problems
        more = len(problems) - _MOST_PROBLEMS
        named = [f"{each}: it can't be run so" for each in problems[:_MOST_PROBLEMS]]
        return (*self.content.warnings, *named, *([f"{more} more weights lack theirs"] if more > 0 else []))


def is_weight_file(model: str) -> bool:
    """Whether a file of weights lies at that path, by its suffix or by what it begins with."""
    path = Path(model)
    if not is_path(model) or path.is_dir():
        return False
    return path.suffix.lower() in WEIGHT_SUFFIXES or starts_with(model, _GGUF)


def inspect_file(path: str | Path, where: str | None = None, *, dtype: str | None = None) -> InspectedFile:
    """What the file at ``path`` is, by its header alone; InvalidFile for one that is malformed.

    ``where`` is how messages name it, ``dtype`` what plain weights are to load as. Imports no torch.
    """
    check_load_dtype(dtype)
    name = where or str(path)
    file = read_weight_file(str(path), name)
    quantisation = quantisation_of(file, name)
    content = recognise_weights(quantisation.shapes, _layouts())
    return InspectedFile(
        file=file,
        content=content,
        quantisation=quantisation,
        load_bytes=_load_bytes(file, content, quantisation, dtype),
    )


@cache
def _layouts() -> KnownLayouts:
    return KnownLayouts(known_layouts())


def _load_bytes(file: WeightFile, content: FileContent, quantisation: Quantisation, dtype: str | None) -> int:
    """As its library holds them: quantised ones as stored, plain and cast ones at the dtype that they load at."""
    sizes = sizes_of(file)
    asked = dtype or default_load_dtype({dtype: sum(by_name.values()) for dtype, by_name in sizes.items()})
    facts = load_class_facts().get(content.class_name or "") if content.layout == "diffusers" else None
    quantised = quantisation.method not in (None, CAST)
    return sum(size_as_loaded(sizes, asked, facts or ClassFacts(), packed=None if quantised else ()).by_name.values())


def file_document(found: InspectedFile) -> dict[str, object]:
    """One file as a JSON object, schema 1."""
    content, quantisation = found.content, found.quantisation
    return {
        "schema": 1,
        "path": found.file.path,
        "format": found.file.container,
        "layout": content.layout,
        "family": content.family,
        "component": content.component,
        "candidates": [
            {"model": each.model, "component": each.component, "why": each.why} for each in content.candidates
        ],
        "parts": [
            {"prefix": each.prefix, "component": each.component, "tensors": each.tensors} for each in content.parts
        ],
        "bytes": found.stored_bytes,
        "load_bytes": found.load_bytes,
        "bits_per_weight": quantisation.bits_per_weight,
        "tensors": len(found.file.tensors),
        "quantization": quantisation.method,
        "quantization_detail": quantisation.detail,
        "runs": quantisation.runs,
        "why_not": quantisation.why_not(),
        "warnings": list(found.warnings),
    }


def component_detail(root: Path, component: Component) -> object:
    """What the files of a directory's quantised component are stored as; None for plain and pickled ones.

    Raises InvalidFile for markers or scales that are malformed.
    """
    if component.quantization is None or component.tensors is None:
        return None
    files = [read_weight_file(str(root / name), name) for name in component.files]
    return quantisation_of(as_one(files), component.name).detail
