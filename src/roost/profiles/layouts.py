"""The layouts in which files hold the known models' components, from the package's data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

from roost.facts.layouts import KnownLayout, LayoutName
from roost.profiles.published import Tree, expand, model_names, published_classes, published_owners

_FILE = Path(__file__).parent / "layouts.json"


@cache
def known_layouts() -> tuple[KnownLayout, ...]:
    """Every layout of every component of the known models, each with all components that share its tensors."""
    others: dict[str, dict[str, Tree]] = {}
    for key, tree in _generated().items():
        owner, _, layout = key.rpartition("/")
        others.setdefault(owner, {})[layout] = tree
    sharing: dict[str, list[tuple[str, str]]] = {}
    owners = published_owners()
    for key, (owner, _) in owners.items():
        model, component = key.split("/")
        sharing.setdefault(owner, []).append((model, component))
    classes = {name: published_classes(name) for name in model_names()}
    return tuple(
        each
        for owner, components in sharing.items()
        for each in _of_owner(owners[owner][1], others.get(owner, {}), tuple(components), classes)
    )


def _of_owner(
    tree: Tree, others: dict[str, Tree], components: tuple[tuple[str, str], ...], classes: dict[str, dict[str, str]]
) -> Iterator[KnownLayout]:
    model, component = components[0]
    for layout, each in {"diffusers": tree, **others}.items():
        yield KnownLayout(
            layout=cast(LayoutName, layout),
            class_name=classes[model][component],
            components=components,
            tensors={name: tuple(shape) for name, shape in expand(each)},
        )


def _generated() -> dict[str, Any]:
    return json.loads(_FILE.read_text(encoding="utf-8"))["layouts"]  # type: ignore[no-any-return]
