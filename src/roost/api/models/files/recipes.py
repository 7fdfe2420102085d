"""Recipes of components from files: from the cache, or derived by the libraries' own converters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roost.api.models.files.kept_recipes import read_recipe, recipe_key, write_recipe
from roost.api.models.versions import installed_versions
from roost.facts.model import ClassFacts, Component, PublishedModel
from roost.facts.weight_files import Recipe, WeightFile
from roost.probes.files.formats.weights import quantised_weights
from roost.profiles.class_facts import load_class_facts
from roost.temporary import temporary_folder
from roost.user_folders import user_folder

_LIBRARIES = ("torch", "diffusers", "transformers", "gguf")


def recipe_of(source: Path | PublishedModel, component: Component, file: WeightFile) -> Recipe:
    """How the component of the model at ``source`` is made of the file. Raises InvalidFile for a file of another.

    Imports no torch where the recipe is in the cache.
    """
    with _config_of(source, component) as directory:
        folder, key = user_folder("cache") / "recipes", _key(component, file, directory)
        kept = read_recipe(folder, key, file)
        if kept is not None:
            return kept
        recipe = _derived(component, file, directory)
    write_recipe(folder, key, recipe)
    return recipe


def _key(component: Component, file: WeightFile, directory: Path) -> str:
    config = (directory / component.name / "config.json").read_bytes()
    asked = {
        "name": component.name,
        "library": component.library,
        "class": component.class_name,
        "dtype": component.load_dtype,
        "small": repr(sorted(file.small.items())),  # markers say how others are to be read
    }
    return recipe_key(file, config, _facts(component), asked, installed_versions(_LIBRARIES))


def _facts(component: Component) -> ClassFacts:
    return load_class_facts().get(component.class_name, ClassFacts())


def _derived(component: Component, file: WeightFile, directory: Path) -> Recipe:
    from roost.pipelines.quiet import quiet_libraries, quiet_torch  # imported here: these bring torch

    with quiet_libraries(), quiet_torch():
        from roost.pipelines.formats.recipes import derive_recipe
        from roost.pipelines.formats.skeletons import ComponentConfig

        config = ComponentConfig(
            name=component.name, described=component, config_dir=directory, facts=_facts(component)
        )
        return derive_recipe(config, file, quantised_weights(file, file.path))


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
