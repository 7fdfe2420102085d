"""Published models by name: configs, shard indexes and headers, made from the package's data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, Union

from roost.facts.model import PublishedModel, WeightsFile

_FOLDER = Path(__file__).parent
_DIFFUSERS_BASE_NAME, _BASE_NAME = "diffusion_pytorch_model", "model"


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
        of_diffusers = "_class_name" in family["configs"][f"{component}/config.json"]
        for entry in stored_sets:
            stored = Stored(
                base_name=_DIFFUSERS_BASE_NAME if of_diffusers else _BASE_NAME,
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
        tokenizers=stand_in_tokenizers(index),
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


def published_owners() -> dict[str, tuple[str, Tree]]:
    """For MODEL/COMPONENT of each known model: the first that has the same tensors, and those tensors."""
    trees = _components()
    owners = {key: tree if isinstance(tree, str) else key for key, tree in trees.items()}
    return {key: (owner, trees[owner]) for key, owner in owners.items()}


def _tree(name: str, component: str) -> Tree:
    """The component's tensors; components that equal another one's are only named after it."""
    trees: Mapping[str, Any] = _components()
    tree = trees[f"{name}/{component}"]
    return trees[tree] if isinstance(tree, str) else tree  # type: ignore[no-any-return]


@cache
def _components() -> Mapping[str, Any]:
    return _read("tensors.json")["components"]  # type: ignore[no-any-return]


def stand_in_tokenizers(index: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of small tokenizers for a pipeline of that index, by their names in its directory."""
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


# How the libraries lay a component's tensors out in safetensors files: names, shards, headers and the index.


_ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
_HEADER_ALIGNMENT = 8

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One stored set of a component's weights. ``shard_bytes`` None means a single file, however large."""

    base_name: str
    variant: str | None
    dtype: str
    shard_bytes: int | None

    @property
    def index_name(self) -> str:
        return f"{self.base_name}.safetensors.index{self._dotted_variant}.json"

    def file_name(self, number: int, count: int) -> str:
        suffix = f"-{number:05d}-of-{count:05d}" if count > 1 else ""
        return f"{self.base_name}{self._dotted_variant}{suffix}.safetensors"

    @property
    def _dotted_variant(self) -> str:
        return f".{self.variant}" if self.variant else ""


def write_checkpoint(shapes: Shapes, stored: Stored) -> tuple[dict[str, WeightsFile], dict[str, Any] | None]:
    """The weight files by name, and their index if there are several."""
    sizes = {name: math.prod(shape) * _ITEM_BYTES[stored.dtype] for name, shape in shapes.items()}
    shards = _shards(sizes, stored.shard_bytes)
    files: dict[str, WeightsFile] = {}
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file_name = stored.file_name(number, len(shards))
        files[file_name] = _weights_file({name: shapes[name] for name in names}, sizes, stored.dtype)
        weight_map |= dict.fromkeys(names, file_name)
    if len(shards) == 1:
        return files, None
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(weight_map.items()))}
    return files, index


def _shards(sizes: Mapping[str, int], shard_bytes: int | None) -> list[list[str]]:
    """Tensor names file by file, filled in order as huggingface_hub does: a tensor above the limit is alone."""
    if shard_bytes is None:
        return [list(sizes)]
    full: list[list[str]] = []
    filling: list[str] = []
    filled_bytes = 0
    for name, size_bytes in sizes.items():
        if size_bytes > shard_bytes:
            full.append([name])
            continue
        if filled_bytes + size_bytes > shard_bytes:
            full.append(filling)
            filling, filled_bytes = [], 0
        filling.append(name)
        filled_bytes += size_bytes
    return [*full, filling] if filling else full


def _weights_file(shapes: Shapes, sizes: Mapping[str, int], dtype: str) -> WeightsFile:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(shapes):  # as the safetensors library orders tensors of one dtype
        end = offset + sizes[name]
        entries[name] = {"dtype": dtype, "shape": list(shapes[name]), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    return WeightsFile(header=header + b" " * (-len(header) % _HEADER_ALIGNMENT), payload_bytes=offset)


# Names and shapes of a component's tensors, written with repeated blocks once: ``"blocks.[0-39].": {…}``.


Shape: TypeAlias = Sequence[int]
# A name maps to a shape; a prefix with one range of indices maps to the tree of each block.
Tree: TypeAlias = Mapping[str, Union["Tree", Shape]]

_RANGE = re.compile(r"(.*)\[(\d+)-(\d+)\](\..*)", re.ASCII)


def expand(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Shape]]:
    """Every tensor of the tree with its shape, in the order of the class's own state."""
    for key, value in tree.items():
        for name in _names(key):
            if isinstance(value, Mapping):
                yield from expand(value, prefix + name)
            else:
                yield prefix + name, value


def _names(key: str) -> Iterator[str]:
    match = _RANGE.fullmatch(key)
    if match is None:
        yield key
        return
    before, first, last, after = match.groups()
    for index in range(int(first), int(last) + 1):
        yield f"{before}{index}{after}"
