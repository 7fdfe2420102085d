"""ComfyUI's folders of models: which files of weights lie in them, and what each is. One broken file is one line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roost.api.models.files.inspect_files import WEIGHT_SUFFIXES, InspectedFile, file_document, inspect_file
from roost.errors import InvalidFile
from roost.plan.strict_yaml import MAX_BYTES, NotValid, yaml_mapping
from roost.regular_files import read_regular
from roost.shell_quoting import shown_path

# Kinds of files by ComfyUI's names of their folders; some have an older name.
_KINDS: Mapping[str, tuple[str, ...]] = {
    "diffusion_models": ("diffusion_models", "unet"),
    "text_encoders": ("text_encoders", "clip"),
    "clip_vision": ("clip_vision",),
    "vae": ("vae",),
    "checkpoints": ("checkpoints",),
    "loras": ("loras",),
}
_FOLDERS = {folder: kind for kind, folders in _KINDS.items() for folder in folders}
_TELLING = ("diffusion_models", "checkpoints", "loras", "clip", "clip_vision")  # no diffusers directory has these
_INDEXES = ("model_index.json", "modular_model_index.json")
_EXTRA = "extra_model_paths.yaml"
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_MOST_FILES, _DEEPEST = 5000, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFile:
    """One file of a folder of models: what was found, or why nothing was. ``kind`` is its folder's, in newer words."""

    path: str
    kind: str
    found: InspectedFile | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedFolder:
    """All files of weights in a ComfyUI folder and in those that its ``extra_model_paths.yaml`` names."""

    path: str
    files: tuple[FolderFile, ...]
    warnings: tuple[str, ...] = ()


def is_comfy_folder(model: str) -> bool:
    """Whether the directory looks like ComfyUI's, like its ``models``, or like one folder of files in there."""
    root = Path(model)
    if not root.is_dir() or any((root / name).exists() for name in _INDEXES):
        return False
    inner = _models_of(root)
    if any((inner / name).is_dir() for name in _TELLING) or (root / _EXTRA).is_file() or _is_split(root / "models"):
        return True
    return _is_folder_of_files(root)


def _is_folder_of_files(root: Path) -> bool:
    """Files of weights without a config: under a name of ComfyUI's, or with a GGUF among them."""
    if (root / "config.json").exists():
        return False
    names = [each.name.lower() for each in root.iterdir() if each.is_file()]
    weights = [name for name in names if name.endswith(WEIGHT_SUFFIXES)]
    return any(name.endswith(".gguf") for name in weights) or (bool(weights) and root.resolve().name in _FOLDERS)


def _is_split(models: Path) -> bool:
    return any((models / name).is_dir() for name in _FOLDERS)


def _models_of(root: Path) -> Path:
    return root / "models" if (root / "models").is_dir() else root


def inspect_folder(model: str | Path, *, dtype: str | None = None) -> InspectedFolder:
    """Every file of weights in the folder, by its headers alone; ``dtype`` as for one file."""
    root, warnings = Path(model), list[str]()
    places = [(_models_of(root) / folder, kind) for folder, kind in _FOLDERS.items()]
    places += _extra_places(root, warnings)
    if not any(folder.is_dir() for folder, _ in places):
        places = [(root, _FOLDERS.get(root.resolve().name, root.name))]
    found: list[FolderFile] = []
    seen: set[str] = set()
    for folder, kind in places:
        for path in _files_in(folder, seen):
            if len(found) == _MOST_FILES:
                warnings.append(f"only the first {_MOST_FILES} files are shown")
                return InspectedFolder(path=str(root), files=tuple(found), warnings=tuple(warnings))
            found.append(_inspected(path, kind, root, dtype))
    return InspectedFolder(path=str(root), files=tuple(found), warnings=tuple(warnings))


def _inspected(path: Path, kind: str, root: Path, dtype: str | None) -> FolderFile:
    name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    try:
        return FolderFile(path=str(path), kind=kind, found=inspect_file(path, name, dtype=dtype))
    except InvalidFile as error:
        return FolderFile(path=str(path), kind=kind, error=str(error))


def _files_in(folder: Path, seen: set[str]) -> Iterator[Path]:
    """In order of their names. Links are followed, as ComfyUI does, but nothing is entered or listed twice."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen or len(Path(parent).parts) - len(folder.parts) > _DEEPEST:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(files):
            path = Path(parent, name)
            if path.suffix.lower() in (*WEIGHT_SUFFIXES, *_PICKLES) and os.path.realpath(path) not in seen:
                seen.add(os.path.realpath(path))
                yield path


def _extra_places(root: Path, warnings: list[str]) -> list[tuple[Path, str]]:
    """Folders that ``extra_model_paths.yaml`` names; what of it can't be used is a warning."""
    path = root / _EXTRA
    if not path.is_file():
        return []
    try:
        document = yaml_mapping(read_regular(path, MAX_BYTES + 1), _EXTRA)
    except (OSError, NotValid) as error:
        warnings.append(f"{shown_path(path)} can't be used: {error}")
        return []
    places: list[tuple[Path, str]] = []
    for name, section in document.items():
        if isinstance(section, dict):
            places += _of_section(root, section)
        else:
            warnings.append(f"{shown_path(path)}: section {name!r} is no mapping")
    return places


def _of_section(root: Path, section: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """A kind's value holds one folder a line, relative to the section's ``base_path``."""
    base = section.get("base_path")
    start = root / Path(os.path.expandvars(base)).expanduser() if isinstance(base, str) and "\0" not in base else root
    for folder, kind in _FOLDERS.items():
        listed = section.get(folder)
        for line in listed.splitlines() if isinstance(listed, str) else ():
            if line.strip() and "\0" not in line:
                yield start / Path(line.strip()).expanduser(), kind


def folder_document(found: InspectedFolder) -> dict[str, object]:
    """A folder as a JSON object, schema 1: its files, and ``error`` where one is broken."""
    return {
        "schema": 1,
        "path": found.path,
        "files": [_file_document(each) for each in found.files],
        "warnings": list(found.warnings),
    }


def _file_document(each: FolderFile) -> dict[str, object]:
    document = {"schema": 1, "path": each.path} if each.found is None else file_document(each.found)
    return {**document, "folder": each.kind, "error": each.error}
