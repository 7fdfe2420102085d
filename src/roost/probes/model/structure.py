"""What every copy of a model shares, whatever its files are called and its weights are stored as."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from roost.facts.model import ClassFacts, Component, Inventory, PublishedModel
from roost.probes.files.header_entries import METADATA_KEY
from roost.probes.model.directory import ModelDirectory
from roost.probes.model.load_sizes import SHARED, SHARED_AGAIN
from roost.probes.model.published_directory import PublishedDirectory


def read_structure(source: Path | PublishedModel, inventory: Inventory, class_facts: Mapping[str, ClassFacts]) -> str:
    """Hash over the pipeline's and components' classes, and the module name and shape of every tensor they load.

    ``inventory`` is what ``read_inventory`` found at ``source``, with every header checked.
    """
    directory = PublishedDirectory(source) if isinstance(source, PublishedModel) else ModelDirectory(source)
    digest = hashlib.sha256(repr(inventory.pipeline).encode())
    for component in sorted(inventory.components, key=lambda each: each.name):
        digest.update(f"\n{component.name}\0{component.class_name}\n".encode())
        shapes = dict(read_tensors(directory, component, class_facts.get(component.class_name, ClassFacts())))
        if SHARED in shapes:
            shapes.pop(SHARED_AGAIN, None)  # some files hold the tied embedding twice
        lines = (f"{name}\0{shapes[name]}" for name in sorted(shapes))
        digest.update("\n".join(lines).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def read_tensors(directory: ModelDirectory, component: Component, facts: ClassFacts) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of each tensor, under module names and without those that the class drops."""
    renames = [(re.compile(pattern), replacement) for pattern, replacement in facts.renames]
    ignored = [re.compile(pattern) for pattern in facts.ignored]
    for file_name in component.files:
        if not file_name.endswith(".safetensors"):
            continue
        entries = json.loads(directory.read_header_text(file_name))
        entries.pop(METADATA_KEY, None)
        for stored_name, entry in entries.items():
            name = stored_name
            for pattern, replacement in renames:
                name = pattern.sub(replacement, name)
            if not any(pattern.search(name) for pattern in ignored):
                yield name, entry["shape"]
