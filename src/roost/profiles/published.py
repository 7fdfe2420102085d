"""Published models by name, from data alone: configs under ``families/``, tensors in the generated ``tensors.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from roost.facts import PublishedModel, WeightsFile
from roost.profiles.shards import Stored, write_checkpoint
from roost.profiles.tensor_tree import Tree, expand

_FOLDER = Path(__file__).parent
_BASE_NAMES = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}


@cache
def model_names() -> tuple[str, ...]:
    """The names of all published models that Roost knows, which are also the keys of their profiles."""
    return tuple(sorted(path.stem for path in (_FOLDER / "families").glob("*.json")))


@cache
def load_published_model(name: str) -> PublishedModel:
    """The published model of one of ``model_names``."""
    family = _read(f"families/{name}.json")
    index = family["model_index"]
    documents = {"model_index.json": index, **family["configs"]}
    weights: dict[str, WeightsFile] = {}
    for component, stored_sets in family["weights"].items():
        for entry in stored_sets:
            stored = Stored(
                base_name=_BASE_NAMES[index[component][0]],
                variant=entry.get("variant"),
                dtype=entry["dtype"],
                shard_bytes=entry.get("shard_bytes"),
            )
            tensors = {**dict(expand(_tree(name, component))), **dict(expand(entry.get("not_in_class", {})))}
            files, shard_index = write_checkpoint(tensors, stored)
            weights |= {f"{component}/{file_name}": file for file_name, file in files.items()}
            if shard_index is not None:
                documents[f"{component}/{stored.index_name}"] = shard_index
    return PublishedModel(
        name=name,
        source=family["source"],
        documents={file_name: _json_text(document) for file_name, document in documents.items()},
        tokenizers=_tokenizer_files(index),
        weights=weights,
    )


def published_classes(name: str) -> dict[str, str]:
    """The class of each component with weights of a published model, by the component's name."""
    index = _read(f"families/{name}.json")["model_index"]
    prefix = f"{name}/"
    return {key[len(prefix) :]: index[key[len(prefix) :]][1] for key in _components() if key.startswith(prefix)}


def published_tensors(name: str, component: str) -> Iterator[str]:
    """The names of all tensors that the component's class takes."""
    return (tensor for tensor, _ in expand(_tree(name, component)))


def _tree(name: str, component: str) -> Tree:
    """The component's tensors; components that equal another one's are only named after it."""
    trees: Mapping[str, Any] = _components()
    tree = trees[f"{name}/{component}"]
    return trees[tree] if isinstance(tree, str) else tree  # type: ignore[no-any-return]


@cache
def _components() -> Mapping[str, Any]:
    return _read("tensors.json")["components"]  # type: ignore[no-any-return]


def _tokenizer_files(index: Mapping[str, Any]) -> dict[str, bytes]:
    return {
        f"{folder}/{file_name}": content
        for folder, entry in index.items()
        if isinstance(entry, list) and entry[1] is not None
        for file_name, content in stand_in_tokenizer(entry[1]).items()
    }


def stand_in_tokenizer(class_name: str) -> dict[str, bytes]:
    """The files of a small tokenizer of that class, by name; none for a class that no published model has."""
    classes = _read("tokenizers.json")["classes"]
    bare = class_name.removesuffix("Fast")
    known = next((each for each in (class_name, f"{bare}Fast", bare) if each in classes), None)
    return {name: text.encode() for name, text in classes[known].items()} if known else {}


def _json_text(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()


def _read(file_name: str) -> dict[str, Any]:
    return json.loads((_FOLDER / file_name).read_text(encoding="utf-8"))  # type: ignore[no-any-return]
