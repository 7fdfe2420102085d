"""Published models by name: what Roost knows of each without a download, and writing their directories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from roost.api.inspection import inspect_model, profile_of
from roost.errors import RoostError, UsageError
from roost.facts import Inventory, PublishedModel, WeightsFile
from roost.profiles.published import load_published_model, model_names
from roost.shell import shown_path
from roost.units import format_bytes


def models_document() -> dict[str, object]:
    """Every model that has a name, as one JSON object, schema 1."""
    return {"schema": 1, "models": [_model_document(load_published_model(name)) for name in model_names()]}


def _model_document(model: PublishedModel) -> dict[str, object]:
    inventory = inspect_model(model.name)
    profile = profile_of(inventory)
    return {
        "name": model.name,
        "title": profile.title,
        "task": profile.task,
        "source": model.source,
        "pipeline": inventory.pipeline,
        "workload": asdict(profile.workload),
        "bytes": sum(each.bytes for each in inventory.components),
        "load_bytes": inventory.load_bytes,
        "components": [_component_document(inventory, each.name) for each in inventory.components],
    }


def _component_document(inventory: Inventory, name: str) -> dict[str, object]:
    component = inventory.component(name)
    return {
        "name": name,
        "class": component.class_name,
        "bytes": component.bytes,
        "load_bytes": component.load_bytes,
        "load_dtype": component.load_dtype,
    }


def write_model_directory(name: str, directory: Path, *, sparse: bool) -> None:
    """Writes a published model's directory: true configs, headers, indexes and file sizes, small stand-in tokenizers.

    The weights are holes in sparse files, which read as zeros and take no disk. Raises UsageError for an unknown name,
    without ``sparse`` (there are no weights to write), and for a directory that has anything in it.
    """
    model = published_model(name)
    if not sparse:
        total = sum(len(each.header) + each.payload_bytes for each in model.weights.values())
        raise UsageError(
            f"{model.name} has {format_bytes(total)} of weights, which Roost doesn't have; write sparse files in their"
            f" place with --sparse, or fetch them with: hf download {model.source}"
        )
    _claim(directory)
    materialise_configs(model.name, directory)
    for file_name, weights in model.weights.items():
        _write_sparse(directory / file_name, weights)


def materialise_configs(name: str, directory: Path) -> None:
    """Writes only what a pipeline object is built from: configs, indexes and stand-in tokenizers, no weight files."""
    model = published_model(name)
    files: Mapping[str, bytes] = {**model.documents, **model.tokenizers}
    for file_name, content in files.items():
        path = directory / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def published_model(name: str) -> PublishedModel:
    """The model of that name; UsageError when there is none."""
    known = name.strip().lower()
    if known not in model_names():
        raise UsageError(f"{name!r} is not a model's name; roost models lists them: {', '.join(model_names())}.")
    return load_published_model(known)


def _claim(directory: Path) -> None:
    """Makes the directory, which may be there but must be empty."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        is_empty = not any(directory.iterdir())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RoostError(f"can't write {shown_path(directory)}: {reason}; choose another place.") from None
    if not is_empty:
        raise UsageError(f"{shown_path(directory)} is not empty; choose another place, or empty it first.")


def _write_sparse(path: Path, weights: WeightsFile) -> None:
    with path.open("wb") as file:
        file.write(len(weights.header).to_bytes(8, "little") + weights.header)
        file.truncate(file.tell() + weights.payload_bytes)
