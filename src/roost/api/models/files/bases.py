"""What files of weights are put into: a directory, a model by name, or the model that an all-in-one file is."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from roost.api.models.files.inspect_files import inspect_file, is_weight_file
from roost.errors import InvalidFile, UsageError
from roost.facts.model import PublishedModel
from roost.option_spelling import file_option, option
from roost.probes.model.components import is_checker_class
from roost.probes.model.hub import is_path, resolve_model
from roost.profiles.published import load_published_model, model_names
from roost.shell_quoting import shown_path

T = TypeVar("T")

_INDEX = "model_index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Where a model's configs come from, and the files of those components whose weights are elsewhere."""

    source: Path | PublishedModel
    files: Mapping[str, Path]


def base_of(model: str, files: Mapping[str, Path]) -> Base:
    """The base of what was typed. An existing path goes before a name; a hub id has a slash and no name has.

    Raises InvalidFile or UsageError for what is no model, and for a file that holds one component alone.
    """
    name = model.strip().lower()
    if name in model_names() and not is_path(model):
        return _by_name(name, files)
    if is_weight_file(model):
        name, own = _all_in_one(Path(model))
        return _by_name(name, {**own, **files})
    return Base(source=resolve_model(model, model_names()), files=files)


def published_base(name: str, given: Collection[str]) -> PublishedModel:
    """The published model; where all its weights are given files, without what only looks at results.

    Nobody has a file of such a component, and pipelines do without.
    """
    published = load_published_model(name)
    index = json.loads(published.documents[_INDEX])
    checkers = {part for part, entry in index.items() if isinstance(entry, list) and is_checker_class(str(entry[1]))}
    weighted = {file_name.partition("/")[0] for file_name in published.weights}
    if not given or not checkers or not weighted - checkers <= set(given):
        return published
    index |= {part: [None, None] for part in checkers}
    documents = {**published.documents, _INDEX: (json.dumps(index, indent=2) + "\n").encode()}
    return replace(published, documents=_without(documents, checkers), weights=_without(published.weights, checkers))


def _by_name(name: str, files: Mapping[str, Path]) -> Base:
    return Base(source=published_base(name, files), files=files)


def _without(files: Mapping[str, T], folders: Collection[str]) -> dict[str, T]:
    return {name: each for name, each in files.items() if name.partition("/")[0] not in folders}


def _all_in_one(path: Path) -> tuple[str, dict[str, Path]]:
    """The model that a checkpoint of several components is, and its components, all in that file."""
    content = inspect_file(path).content
    names = list(dict.fromkeys(each.model for each in content.candidates))
    if content.component == "lora":
        raise UsageError(
            f"{shown_path(path)} is a LoRA; name the model that it changes, and give it with"
            f" {option('lora', shlex.quote(str(path)))}."
        )
    if not content.parts:
        components = list(dict.fromkeys(each.component for each in content.candidates if each.model in names[:1]))
        which = " or ".join(components) if len(names) == 1 and len(components) > 1 else content.component
        what = f"{which or 'one component'} of {' or '.join(names[:3]) or 'an unknown model'}"
        base = names[0] if len(names) == 1 else "BASE"
        given = file_option(content.component or "COMPONENT", path)
        raise UsageError(
            f"{shown_path(path)} holds one component alone ({what}); name the model that it goes into, a directory or a"
            f" name: {base} with {given}."
        )
    if len(names) != 1:
        which = f"it may be {' or '.join(names)}" if names else "it is of no model that is known by name"
        parts = ", ".join(dict.fromkeys(each.component for each in content.parts))
        raise InvalidFile(
            f"{shown_path(path)} holds {parts}, and {which}: name the model, and give the file for each component, like"
            f" {file_option('vae', path)}."
        )
    own = {each.component: path for each in content.parts}
    return names[0], own
