"""Weights that a model's own file only casts to 8 bits: what they are as stored, and components that keep them so.

The up-cast is lossless, so a linear layer that does it in each forward has the bits of one that was loaded so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from roost.api.models.files.composed import RecipeOf, made_of
from roost.errors import InvalidFile
from roost.facts.model import ClassFacts, Component, GivenFile, Inventory
from roost.probes.files.formats.layouts import FP8
from roost.probes.files.formats.summary import is_linear
from roost.probes.files.weights import read_weight_file
from roost.probes.model.load_sizes import LOAD_DTYPE_BITS

_LIBRARIES = ("diffusers", "transformers")


def can_stay(component: Component) -> bool:
    """Whether the component's weights are plain casts to 8 bits, all in one file of a directory."""
    plain = component.tensors is not None and component.quantization is None and component.source is None
    own_folder = [each.startswith(f"{component.name}/") for each in component.files]  # where its config is, too
    one_file = own_folder == [True] and component.library in _LIBRARIES
    return plain and one_file and not FP8.isdisjoint(component.bytes_by_dtype)


def with_stream_bytes(component: Component, root: Path, facts: ClassFacts) -> Component:
    """The component with what it takes where its linear layers keep their 8 bits, by its header."""
    if not can_stay(component):
        return component
    file = read_weight_file(str(root / component.files[0]), component.files[0])
    kept = frozenset(facts.keep_in_float32)
    each_saves = LOAD_DTYPE_BITS[component.load_dtype or "bfloat16"] // 8 - 1
    stored_bytes = sum(
        each.bytes
        for each in file.tensors.values()
        if each.format in FP8 and is_linear(each.name, each.shape) and kept.isdisjoint(each.name.split("."))
    )
    return replace(component, stream_bytes=component.load_bytes - each_saves * stored_bytes)


def keeping_8_bits(inventory: Inventory, names: Collection[str], recipe_of: RecipeOf) -> Inventory:
    """The inventory with the weights of these components as their own files store them.

    Raises InvalidFile for a component that can't be made of its file.
    """
    given, components = dict(inventory.given), []
    for each in inventory.components:
        made = each
        if each.name in names and can_stay(each):
            given[each.name] = _given(each, Path(inventory.path or ""), recipe_of)
            made = made_of(replace(each, notes=()), given[each.name])
            assert made.source is not None
            made = replace(made, source=replace(made.source, path=each.files[0], own=True))
        components.append(made)
    return replace(inventory, components=tuple(components), given=given)


def _given(component: Component, root: Path, recipe_of: RecipeOf) -> GivenFile:
    file = read_weight_file(str(root / component.files[0]), component.files[0])
    recipe = recipe_of(component, file)
    if recipe.unused or not any(each.packed for each in recipe.targets):
        raise InvalidFile(f"{component.files[0]} holds more than its component's layers, or none in 8 bits.")
    return GivenFile(file=file, recipe=recipe)


def keep_what_can(inventory: Inventory, recipe_of: RecipeOf) -> Inventory:
    """The inventory with 8 bits kept wherever a component can be made so; the others load as their library does."""
    for each in inventory.components:
        if can_stay(each):
            try:
                inventory = keeping_8_bits(inventory, (each.name,), recipe_of)
            except InvalidFile:
                continue  # what its library makes of it then, it may make otherwise
    return inventory
