"""What a directory is that someone gives as a model and that has no ``model_index.json``, and what to give instead."""

from __future__ import annotations

import os
from pathlib import Path

from roost.probes.files.safe_files import listed, shown
from roost.probes.recognition.files import recognise_file
from roost.shell_quoting import shown_path

_INDEXES = ("model_index.json", "modular_model_index.json")
_WEIGHTS = (".gguf", ".ckpt", ".pt", ".pth", ".bin", ".onnx", ".dduf", ".msgpack", ".h5")
_AUTHORS = (".pth", ".pt", ".safetensors", ".bin")
_GIVE = "Give a directory in the diffusers layout, with safetensors weights."
_CACHED = "models--"


def why_no_layout(path: Path, names: list[str]) -> str:
    """A message for the directory at ``path``, which holds ``names``."""
    where = shown_path(path)
    if not names:
        return f"{where} is empty. {_GIVE}"
    if {"blobs", "snapshots"} <= set(names):
        return f"{where} is a repository in the Hugging Face cache. Give {_id_of(path)}."
    cached = [name for name in names if name.startswith(_CACHED)]
    if cached:
        return f"{where} is a Hugging Face cache. Give the id of a model in it, such as {_id_of(Path(cached[0]))}."
    return f"{where} has no {_INDEXES[0]} (it holds {listed(names, 6)}). {_instead(path, names)}"


def _id_of(path: Path) -> str:
    """What to type for a cached repository."""
    if not path.name.startswith(_CACHED):
        return "the id of its model, org/name"
    return "its id, " + shown(path.name.removeprefix(_CACHED).replace("--", "/"))


def _instead(path: Path, names: list[str]) -> str:
    folders = [name for name in names if os.path.isdir(path / name) and not os.path.islink(path / name)]
    indexed = [name for name in folders if any(os.path.isfile(path / name / index) for index in _INDEXES)]
    if indexed:
        return f"There is one in {listed(indexed, 3)}: give {shown_path(path / indexed[0])}."
    if any(os.path.isfile(path / name / "scheduler_config.json") for name in folders):
        return f"Its other files are those of a model for diffusers: fetch {_INDEXES[0]} from where they came."
    weights = [name for name in names if name.lower().endswith(_WEIGHTS)]
    for name in weights:
        found = recognise_file(path / name)
        if found is not None:
            return f"{shown(name)} is {found.what}. {found.remedy}"
    if weights or any(_holds_weights(path / name) for name in folders):
        return (
            "It looks like its authors' own layout: fetch the repository that has the model for diffusers, often named"
            " with -Diffusers at its end."
        )
    return _GIVE


def _holds_weights(folder: Path) -> bool:
    try:
        return any(name.endswith(_AUTHORS) for name in os.listdir(folder))
    except OSError:
        return False
