"""Recipes of components from files: from the cache, or derived by the libraries' own converters."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter

from roost.api.models.versions import installed_versions
from roost.errors import RoostError
from roost.facts.model import ClassFacts, Component, PublishedModel
from roost.facts.weight_files import Recipe, WeightFile
from roost.plan import write_bytes_atomically
from roost.profiles.class_facts import load_class_facts
from roost.regular_files import read_regular
from roost.temporary import temporary_folder
from roost.units import MiB
from roost.user_folders import user_folder

# Raise it when the same file would give another recipe.
_VERSION = 1
_MOST_BYTES = 64 * MiB
_LIBRARIES = ("torch", "diffusers", "transformers")


def recipe_of(source: Path | PublishedModel, component: Component, file: WeightFile) -> Recipe:
    """How the component of the model at ``source`` is made of the file. Raises InvalidFile for a file of another.

    Imports no torch where the recipe is in the cache.
    """
    with _config_of(source, component) as directory:
        path = _path(component, file, directory)
        kept = _read(path)
        if kept is not None:
            return kept
        recipe = _derived(component, file, directory)
    with contextlib.suppress(OSError, RoostError):  # a cache that can't be written is done without
        write_bytes_atomically(path, _adapter().dump_json(recipe))
    return recipe


def _derived(component: Component, file: WeightFile, directory: Path) -> Recipe:
    from roost.pipelines.quiet import quiet_libraries, quiet_torch  # imported here: these bring torch

    with quiet_libraries(), quiet_torch():
        from roost.pipelines.formats.recipes import derive_recipe
        from roost.pipelines.formats.skeletons import ComponentConfig

        facts = load_class_facts().get(component.class_name, ClassFacts())
        config = ComponentConfig(name=component.name, described=component, config_dir=directory, facts=facts)
        return derive_recipe(config, file)


@contextmanager
def _config_of(source: Path | PublishedModel, component: Component) -> Iterator[Path]:
    """A directory that has the component's config."""
    if not isinstance(source, PublishedModel):
        yield source
        return
    with temporary_folder() as folder:
        for name, content in source.documents.items():
            if name.startswith(f"{component.name}/"):
                path = folder / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
        yield folder


def _path(component: Component, file: WeightFile, directory: Path) -> Path:
    config = (directory / component.name / "config.json").read_bytes()
    facts = [
        _VERSION,
        file.sha256,
        {name: content.hex() for name, content in file.small.items()},
        component.library,
        component.class_name,
        component.load_dtype,
        hashlib.sha256(config).hexdigest(),
        installed_versions(_LIBRARIES),
    ]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return user_folder("cache") / "recipes" / f"{key}.json"


def _read(path: Path) -> Recipe | None:
    try:
        return _adapter().validate_json(read_regular(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError, RoostError):
        return None


def _adapter() -> TypeAdapter[Recipe]:
    return TypeAdapter(Recipe)
