"""The local Hugging Face cache: where it is, and which snapshot a model id means. Nothing is ever downloaded."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from roost.errors import InvalidFile
from roost.probes.files.safe_files import quoted
from roost.shell_quoting import shown_path

_MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_SNAPSHOT = re.compile(r"[\w-]{1,64}", re.ASCII)


def hub_cache() -> Path:
    """The cache's folder, by the environment variables that huggingface_hub reads."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]).expanduser() / "hub"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "huggingface" / "hub"


def resolve_model(model: str, names: Sequence[str] = ()) -> Path:
    """The directory that ``model`` means: an existing path as it is, else a model id's snapshot in the cache.

    ``names`` are known model names, for the message when ``model`` is nothing of the kind.
    """
    if is_path(model):
        return Path(model)
    if not _MODEL_ID.fullmatch(model):
        raise InvalidFile(
            f"{shown_path(model)} doesn't exist, and it isn't a Hugging Face id like org/name{_name_like(model, names)}"
            " Give a model directory's path, or a name that roost models lists."
        )
    return _find_snapshot(model)


def is_path(model: str) -> bool:
    """Whether something lies at that path."""
    try:
        return bool(model) and os.path.lexists(model)
    except ValueError:  # a NUL in the text
        return False


def _name_like(model: str, names: Sequence[str]) -> str:
    near = get_close_matches(model.lower(), names, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else "."


def _find_snapshot(model_id: str) -> Path:
    repository = hub_cache() / f"models--{model_id.replace('/', '--')}"
    snapshots = repository / "snapshots"
    try:
        revision = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        revision = ""
    if not _SNAPSHOT.fullmatch(revision) or not (snapshots / revision).is_dir():
        raise InvalidFile(
            f"{quoted(model_id)} is no path here and isn't in the Hugging Face cache {shown_path(hub_cache())}. "
            f"Fetch it with: hf download {model_id}"
        )
    return snapshots / revision


def blobs_folders(root: str) -> tuple[str, ...]:
    """Real paths of the folders outside ``root`` that a cached model's links may lead into.

    They are the ``blobs`` of the cached repository that ``root`` lies in.
    """
    parts = Path(root).parts
    for index in range(len(parts) - 1, 0, -1):
        if parts[index] == "snapshots" and parts[index - 1].startswith("models--"):
            return (os.path.realpath(Path(*parts[:index], "blobs")),)
    return ()
