"""Which files a component's library would load: diffusers and transformers look in opposite orders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from roost.errors import InvalidFile
from roost.probes.files.safe_files import listed, quoted, shown
from roost.probes.model.directory import ModelDirectory
from roost.probes.model.shard_index import ShardIndex, is_plain, read_index

_Role = Literal["single", "index"]
_SAFETENSORS, _PICKLED = ".safetensors", ".bin"
_DIFFUSERS, _TRANSFORMERS = "diffusion_pytorch_model", "model"
_PICKLED_TRANSFORMERS = "pytorch_model"

_SHARD = r"(?:-\d{5}-of-\d{5})"
_STEM = rf"(?:{_DIFFUSERS}|{_TRANSFORMERS}|{_PICKLED_TRANSFORMERS})"
_VARIANT_NAMES = (
    re.compile(rf"{_STEM}{_SHARD}?\.([\w-]+?){_SHARD}?\.(?:safetensors|bin)"),
    re.compile(rf"{_STEM}\.(?:safetensors|bin)\.index\.([\w-]+)\.json"),
    re.compile(rf"{_STEM}\.(?:safetensors|bin)\.([\w-]+)\.index\.json"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFiles:
    """The files that hold one component's weights, as names relative to the model directory."""

    files: tuple[str, ...]
    index: ShardIndex | None
    variant: str | None
    legacy_index: bool
    missing: tuple[str, ...]  # shards that the index names and the folder hasn't
    unsought: bool = False  # the library would not look for them by itself

    @property
    def pickled(self) -> bool:
        return not self.files[0].endswith(_SAFETENSORS)


def find_weights(
    directory: ModelDirectory, folder: str, library: str | None, *, variant: str | None, explicit: object = None
) -> WeightFiles | None:
    """The weights that ``library`` would load from ``folder`` ("" is the root), or None when it would find none.

    The variant's files are taken where there are any, else the plain ones. ``explicit`` is what the component's config
    gives as ``transformers_weights``, a file name that overrides the usual ones.
    """
    names = directory.names(folder)
    loader = _loader(library, names)
    if explicit is not None and loader == "transformers":
        return _explicit_weights(directory, folder, explicit)
    for wanted in (variant, None) if variant else (None,):
        for name, role, legacy in _candidates(loader, wanted):
            if name in names:
                return _weights(directory, folder, name, role, (wanted, legacy))
    return _pickled_shards(directory, folder, variant) if loader == "diffusers" else None


def _pickled_shards(directory: ModelDirectory, folder: str, variant: str | None) -> WeightFiles | None:
    """Shards that diffusers loads only when it is told not to look for safetensors; sized as other pickles are."""
    for wanted in (variant, None) if variant else (None,):
        name = f"{_DIFFUSERS}.bin.index{f'.{wanted}' if wanted else ''}.json"
        if name in directory.names(folder):
            return replace(_weights(directory, folder, name, "index", (wanted, False)), unsought=True)
    return None


def stems_of(library: str | None, names: Iterable[str]) -> tuple[str, str]:
    """Names without an end that the library gives its weights: of safetensors, of pickles."""
    if _loader(library, names) == "diffusers":
        return _DIFFUSERS, _DIFFUSERS
    return _TRANSFORMERS, _PICKLED_TRANSFORMERS


def find_variants(names: Mapping[str, bool]) -> set[str]:
    """The variants that a folder's file names show."""
    matches = (pattern.fullmatch(name) for name in names for pattern in _VARIANT_NAMES)
    return {match[1] for match in matches if match}


def _loader(library: str | None, names: Iterable[str]) -> str:
    """Whose order counts. A pipeline's own module may hold models of either library: the file names tell."""
    if library in ("diffusers", "transformers"):
        return library
    return "diffusers" if any(name.startswith(_DIFFUSERS) for name in names) else "transformers"


def _candidates(loader: str, variant: str | None) -> Iterator[tuple[str, _Role, bool]]:
    """File names in the order of the library's search, with what each is and whether it is an old spelling."""
    dotted = f".{variant}" if variant else ""
    if loader == "diffusers":
        yield f"{_DIFFUSERS}.safetensors.index{dotted}.json", "index", False
        if variant:
            yield f"{_DIFFUSERS}.safetensors{dotted}.index.json", "index", True
        yield f"{_DIFFUSERS}{dotted}.safetensors", "single", False
        yield f"{_DIFFUSERS}{dotted}.bin", "single", False
    else:
        yield f"{_TRANSFORMERS}{dotted}.safetensors", "single", False
        yield f"{_TRANSFORMERS}.safetensors.index{dotted}.json", "index", False
        yield f"{_PICKLED_TRANSFORMERS}{dotted}.bin", "single", False
        yield f"{_PICKLED_TRANSFORMERS}.bin.index{dotted}.json", "index", False


def _weights(
    directory: ModelDirectory, folder: str, name: str, role: _Role, chosen: tuple[str | None, bool]
) -> WeightFiles:
    variant, legacy = chosen
    if role == "single":
        return WeightFiles(files=(within(folder, name),), index=None, variant=variant, legacy_index=legacy, missing=())
    relative = within(folder, name)
    extension = _SAFETENSORS if _SAFETENSORS in name else _PICKLED
    index = read_index(relative, directory.read_object(relative), extension)
    names = directory.names(folder)
    return WeightFiles(
        files=tuple(within(folder, shard) for shard in index.shards),
        index=index,
        variant=variant,
        legacy_index=legacy,
        missing=tuple(within(folder, shard) for shard in index.shards if shard not in names),
    )


def _explicit_weights(directory: ModelDirectory, folder: str, explicit: Any) -> WeightFiles:
    where = shown(within(folder, "config.json"))
    is_name = type(explicit) is str and is_plain(explicit)
    if not is_name or not explicit.endswith((_SAFETENSORS, ".safetensors.index.json")):
        raise InvalidFile(
            f"{where} gives {quoted(explicit)} as transformers_weights, which is no safetensors file. Mend it."
        )
    if explicit not in directory.names(folder):
        raise InvalidFile(
            f"{where} gives {quoted(explicit)} as transformers_weights, which isn't in that folder. Fetch it."
        )
    role: _Role = "single" if explicit.endswith(_SAFETENSORS) else "index"
    return _weights(directory, folder, explicit, role, (None, False))


def within(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def describe_folder(directory: ModelDirectory, folder: str) -> str:
    """What there is instead of weights, for a message."""
    names = sorted(directory.names(folder))
    return f"it holds {listed(names, 6)}" if names else "it is empty"
