"""A component as its files store it, between the resolving of the files and the sizing at the load dtype."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from roost.errors import InvalidFile, UsageError
from roost.option_spelling import option
from roost.probes.files.formats.directories import TORCHAO, DirectoryWeights, directory_weights
from roost.probes.files.header_entries import Sizes
from roost.probes.files.headers import Header
from roost.probes.files.quantised import method_of
from roost.probes.files.safe_files import quoted, shown
from roost.probes.files.weights import read_weight_file
from roost.probes.model.directory import ModelDirectory
from roost.probes.model.layout import Declared, DirectoryLayout
from roost.probes.model.shard_index import check_against_headers
from roost.probes.model.weight_files import WeightFiles, within

_SUFFIX = re.compile(r"_\d+$", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundComponent:
    """A declared component, the files of its weights and its ``config.json``, which may be missing."""

    declared: Declared
    weights: WeightFiles
    config: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredComponent:
    """Tensors by stored dtype, or only a size where the files are pickled (``sizes`` None)."""

    name: str
    library: str | None
    class_name: str
    position: int
    files: tuple[str, ...]
    sizes: Sizes | None
    pickled_bytes: int = 0
    variant: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    quantization: str | None = None  # the method that the config names, or else the headers show
    unsought: bool = False  # its library would not look for these files by itself
    notes: tuple[str, ...] = ()

    packed: DirectoryWeights | None = None  # of a quantised component

    @property
    def base_name(self) -> str:
        return _SUFFIX.sub("", self.name)


def read_stored(directory: ModelDirectory, found: FoundComponent) -> StoredComponent:
    """The component with the headers of its files read, or their sizes where they are pickled."""
    declared, weights = found.declared, found.weights
    notes = [] if found.config is not None else ["has no config.json, without which it can't be loaded"]
    sizes, pickled_bytes, method = None, 0, _quantization(found)
    if weights.pickled:
        pickled_bytes = sum(directory.measure(name) for name in weights.files)
        notes.append("pickled weights: sized, never opened; convert them to safetensors to load them")
        if weights.unsought:
            notes.append("diffusers doesn't look for pickled shards unless it is told use_safetensors=False")
    else:
        headers = _read_headers(directory, weights)
        sizes = _merged(headers)
        method = method or method_of(sizes, {key: value for each in headers for key, value in each.metadata.items()})
    packed = None if method is None else _packed(directory, found, method)
    return StoredComponent(
        name=declared.name,
        library=declared.library,
        class_name=declared.class_name,
        position=declared.position,
        files=weights.files,
        sizes=sizes,
        pickled_bytes=pickled_bytes,
        variant=weights.variant,
        config=found.config or {},
        quantization=method,
        unsought=weights.unsought,
        notes=tuple(notes),
        packed=packed,
    )


def _packed(directory: ModelDirectory, found: FoundComponent, method: str) -> DirectoryWeights:
    looked_at = method == TORCHAO and not found.weights.pickled
    files = [read_weight_file(str(directory.path / name), name) for name in found.weights.files] if looked_at else []
    settings = (found.config or {}).get("quantization_config") or {}
    return directory_weights(method, files, settings, found.declared.name)


def _quantization(found: FoundComponent) -> str | None:
    """The method that the config names; "unknown" when it names none."""
    settings = (found.config or {}).get("quantization_config")
    if settings is None:
        return None
    if type(settings) is not dict:
        raise InvalidFile(
            f"{shown(within(found.declared.folder, 'config.json'))}: quantization_config must be an object, "
            f"not {quoted(settings)}. Mend it, or fetch it again."
        )
    method = settings.get("quant_method")
    return method if type(method) is str else "unknown"


def _read_headers(directory: ModelDirectory, weights: WeightFiles) -> list[Header]:
    headers = {name.rpartition("/")[2]: directory.read_header(name) for name in weights.files}
    if weights.index is not None:
        check_against_headers(weights.index, headers)
    return list(headers.values())


def _merged(headers: Iterable[Header]) -> Sizes:
    merged: dict[str, dict[str, int]] = {}
    for header in headers:
        for dtype, sizes in header.sizes.items():
            merged.setdefault(dtype, {}).update(sizes)
    return merged


# Components whose weights lie in a file of their own: the model gives their classes and configs alone.

_WEIGHTLESS = re.compile(r"(Scheduler|Tokenizer|Processor|FeatureExtractor)(Fast)?$")


def check_elsewhere(layout: DirectoryLayout, names: Collection[str]) -> None:
    """UsageError for a component that the model doesn't have."""
    known = {each.name for each in layout.components}
    for name in names:
        if name not in known:
            raise UsageError(
                f"{option('files', f'{name}=…')}: the model has no component {quoted(name)};"
                f" it has {', '.join(map(shown, sorted(known)))}."
            )


def stored_elsewhere(directory: ModelDirectory, declared: Declared) -> StoredComponent:
    """The component without weights; InvalidFile without its config, from which it is built.

    UsageError for one that never has weights.
    """
    if _WEIGHTLESS.search(declared.class_name):
        raise UsageError(
            f"{option('files', f'{declared.name}=…')}: {shown(declared.name)} is a {shown(declared.class_name)}, which"
            " has no weights; leave it out."
        )
    config_name = within(declared.folder, "config.json")
    if not declared.folder or not directory.has(config_name):
        raise InvalidFile(
            f"{shown(within(declared.folder or declared.name, 'config.json'))} is missing, which says how"
            f" {shown(declared.name)} is built, whatever file its weights are in. Fetch it, or give a model by its name"
            " (roost models) instead of a directory."
        )
    return StoredComponent(
        name=declared.name,
        library=declared.library,
        class_name=declared.class_name,
        position=declared.position,
        files=(),
        sizes={},
        config=directory.read_object(config_name),
    )
