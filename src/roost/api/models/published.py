"""Published models by name: what Roost knows of each without a download, and writing their directories.

A directory is written whole or not at all, and what a killed writer left is replaced by the next.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from roost.api.models.inspect import inspect_model, profile_of
from roost.errors import UsageError
from roost.facts.model import Inventory, PublishedModel, WeightsFile
from roost.profiles.lock import locked
from roost.profiles.published import load_published_model, model_names
from roost.shell_quoting import shown_path, unwritable
from roost.units import format_bytes

# While it is there the directory is being written, or its writer was killed; it holds the model's name.
_MARKER = ".roost-model-dir"
_REMEDY = "choose another place"


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
    without ``sparse`` (there are no weights to write), and for a place that is no new or empty directory; RoostError
    for a disk that fails. Nothing is left then.
    """
    model = published_model(name)
    if not sparse:
        total = sum(len(each.header) + each.payload_bytes for each in model.weights.values())
        raise UsageError(
            f"{model.name} has {format_bytes(total)} of weights, which Roost doesn't have; write sparse files in their"
            f" place with --sparse, or fetch them with: hf download {model.source}"
        )
    try:
        with _claimed(directory, model):
            materialise_configs(model, directory)
            for file_name, weights in model.weights.items():
                _write_sparse(directory / file_name, weights)
    except (OSError, ValueError) as error:
        raise unwritable(directory, error, _REMEDY) from None


def materialise_configs(model: PublishedModel, directory: Path) -> None:
    """Writes only what a pipeline object is built from: configs, indexes and stand-in tokenizers, no weight files."""
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


@contextmanager
def _claimed(directory: Path, model: PublishedModel) -> Iterator[None]:
    """The directory, empty and marked, with nobody else writing to it; emptied again if that fails."""
    was_there = directory.is_dir()
    if directory.exists() and not was_there:
        raise UsageError(f"can't write {shown_path(directory)}: it is not a directory; {_REMEDY}.")
    directory.mkdir(parents=True, exist_ok=True)
    marker = directory / _MARKER
    names = os.listdir(directory)
    if names and _MARKER not in names:
        raise UsageError(f"{shown_path(directory)} is not empty; {_REMEDY}, or empty it first.")
    with locked(marker):
        _clear(directory, _begun(directory, marker))
        try:
            marker.write_text(model.name, encoding="utf-8")
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                _clear(directory, model)
                marker.unlink()
                if not was_there:
                    directory.rmdir()
            raise
        marker.unlink()


def _begun(directory: Path, marker: Path) -> PublishedModel | None:
    """The model that a killed writer had begun; UsageError if there is anything but its files."""
    name = marker.read_text(encoding="utf-8", errors="replace")
    model = load_published_model(name) if name in model_names() else None
    own = {_MARKER, *(_files(model) if model else ())}
    for folder, folders, files in os.walk(directory):
        links = [each for each in folders if os.path.islink(os.path.join(folder, each))]
        for each in (*links, *files):
            found = os.path.relpath(os.path.join(folder, each), directory)
            if found.replace(os.sep, "/") not in own or each in links:
                raise UsageError(
                    f"{shown_path(directory)} is not empty: beside what an interrupted model-dir left in it, it has"
                    f" {found!r}; {_REMEDY}, or empty it first."
                )
    return model


def _clear(directory: Path, model: PublishedModel | None) -> None:
    """Removes the model's files as far as they are there, and the folders that are empty then."""
    for file_name in _files(model) if model else ():
        (directory / file_name).unlink(missing_ok=True)
    for folder, _, _ in os.walk(directory, topdown=False):
        if folder != str(directory):
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(folder)


def _files(model: PublishedModel) -> list[str]:
    return [*model.documents, *model.tokenizers, *model.weights]


def _write_sparse(path: Path, weights: WeightsFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(weights.header).to_bytes(8, "little") + weights.header)
        file.truncate(file.tell() + weights.payload_bytes)
