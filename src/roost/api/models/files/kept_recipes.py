"""Recipes as JSON, kept in the user's cache directory, so that a plan made before needs no library. No torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from roost.errors import InvalidFile, RoostError
from roost.facts.model import ClassFacts
from roost.facts.weight_files import Piece, Recipe, WeightFile
from roost.plan import write_text_atomically
from roost.regular_files import read_regular
from roost.units import MiB

# Raise it when the recipe of the same file would be another.
RECIPE_VERSION = 1
_MOST_BYTES = 64 * MiB


def recipe_to_document(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON values; ``recipe_from_document`` gives it back, equal."""
    return asdict(recipe)


def recipe_from_document(document: object) -> Recipe:
    """The recipe of a parsed JSON document; InvalidFile for anything that ``recipe_to_document`` doesn't write."""
    try:
        return _adapter().validate_json(json.dumps(document), strict=True)
    except (ValidationError, ValueError, TypeError, RecursionError) as error:
        raise InvalidFile(f"this is not a recipe of a weight file ({type(error).__name__}); plan again.") from None


def recipe_key(
    file: WeightFile, config: bytes, facts: ClassFacts, asked: Mapping[str, str | None], versions: Mapping[str, str]
) -> str:
    """A name for the recipe: equal for the same header, config, class, dtype and library versions.

    ``asked`` are the component's library, class and load dtype; ``config`` is the content of its config.
    """
    deciding = {
        "recipe_version": RECIPE_VERSION,
        "file": [file.sha256, file.container, file.file_bytes],
        "config": hashlib.sha256(config).hexdigest(),
        "facts": asdict(facts),
        "asked": dict(asked),
        "versions": dict(versions),
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:32]


def read_recipe(folder: Path, key: str, file: WeightFile) -> Recipe | None:
    """The recipe kept under ``key``; None when there is none, or none that can be read or fits the file."""
    try:
        recipe = recipe_from_document(json.loads(read_regular(_path(folder, key), _MOST_BYTES)))
    except (OSError, ValueError, RecursionError, RoostError):
        return None
    pieces = [piece for each in recipe.targets for piece in each.pieces]
    pieces += [piece for each in recipe.targets for scale in each.scales for piece in scale.pieces]
    return recipe if all(_is_in(piece, file) for piece in pieces) else None


def write_recipe(folder: Path, key: str, recipe: Recipe) -> None:
    """Keeps the recipe; a cache that can't be written is done without."""
    text = json.dumps(recipe_to_document(recipe), separators=(",", ":"))
    with contextlib.suppress(OSError, RoostError):
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(_path(folder, key), text)


def _is_in(piece: Piece, file: WeightFile) -> bool:
    stored = file.tensors.get(piece.source)
    return stored is not None and 0 <= piece.start <= piece.stop <= (stored.shape or (1,))[0] and piece.repeat > 0


@cache
def _adapter() -> TypeAdapter[Recipe]:
    return TypeAdapter(Recipe)


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.json"
