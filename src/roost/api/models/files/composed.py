"""A model with some of its components' weights from files of their own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from roost.blocks import block_names, gap_bytes, home_unit, leaf_stacks, stacks_and_units
from roost.errors import InvalidFile
from roost.facts.byte_ranges import byte_ranges, item_bytes
from roost.facts.model import Component, FileSource, GivenFile, Inventory, Stack
from roost.facts.weight_files import Recipe, StoredTensor, WeightFile
from roost.facts.weight_formats import PLAIN_FORMATS
from roost.planner.rules.names import kind_of
from roost.probes.files.formats.summary import Quantisation, quantisation_of
from roost.probes.files.weights import read_weight_file
from roost.probes.model.load_sizes import LOAD_DTYPE_BITS, default_load_dtype
from roost.shell_quoting import shown_path

# How a component is made of a file. Raises InvalidFile for a file that isn't the component's.
RecipeOf = Callable[[Component, WeightFile], Recipe]


def read_runnable(component: str, path: Path) -> WeightFile:
    """The file's header; InvalidFile for one whose format this version doesn't run, with what would work instead."""
    file = read_weight_file(str(path))
    why = quantisation_of(file, str(path)).why_not()
    if why is not None:
        raise InvalidFile(f"{shown_path(path)}, given for {component!r}, can't be run: {why}.")
    return file


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenDtypes:
    """What is known of the dtypes that given files load at: as ``typed`` for all, or as ``planned`` before."""

    files: Mapping[str, WeightFile]
    typed: str | None
    planned: Mapping[str, str | None]


def as_the_others_load(inventory: Inventory, dtypes: GivenDtypes, published: Inventory | None) -> Inventory:
    """The inventory with load dtypes of the components of files, which must suit each other in one call.

    That is the dtype planned or typed, else the one that most of the model's own weights load at, else that of the
    model as it is ``published``, else what most of the files' plain weights are stored as. A VAE's says nothing: many
    families keep it in float32.
    """
    own: Counter[str] = Counter()
    for each in inventory.components:
        if each.name not in dtypes.files and each.load_dtype is not None and kind_of(each) != "vae":
            own[each.load_dtype] += each.load_bytes
    formats = sum((_bytes_by_format(each.tensors.values()) for each in dtypes.files.values()), Counter[str]())
    known = {each.name: each.load_dtype for each in published.components} if published else {}

    def dtype(name: str) -> str:
        most = own.most_common(1)[0][0] if own else known.get(name)
        return dtypes.planned.get(name) or dtypes.typed or most or default_load_dtype(formats)

    components = tuple(
        replace(each, load_dtype=dtype(each.name)) if each.name in dtypes.files else each
        for each in inventory.components
    )
    return replace(inventory, components=components)


def with_files(inventory: Inventory, files: Mapping[str, WeightFile], recipe_of: RecipeOf) -> Inventory:
    """The inventory with the components of these files, which had no weights before."""
    given = {
        name: GivenFile(file=file, recipe=recipe_of(inventory.component(name), file)) for name, file in files.items()
    }
    components = tuple(made_of(each, given[each.name]) if each.name in given else each for each in inventory.components)
    return replace(inventory, components=components, given=given)


def made_of(component: Component, given: GivenFile) -> Component:
    """The component as the file's weights make it."""
    file, recipe = given.file, given.recipe
    by_name = _tensors(recipe)
    stacks, units = stacks_and_units(by_name)
    used, quantisation = _used(given), quantisation_of(file, file.path)
    in_file = {each.name for each in byte_ranges(file, recipe)}
    kept = {name: size for name, size in by_name.items() if name not in in_file}
    bytes_by_format = _bytes_by_format(used)
    return replace(
        component,
        bytes=bytes_by_format.total(),
        bytes_by_dtype=dict(bytes_by_format),
        tensors=len(used),
        load_bytes=sum(by_name.values()),
        stacks=stacks,
        units=_with_kept(units, kept),
        leaves=_with_kept(leaf_stacks(by_name, units), kept),
        quantization=recipe.method,
        quantization_detail=quantisation.detail,
        extra_bytes=gap_bytes(by_name.values()),
        kept_bytes=sum(kept.values()),
        source=FileSource(
            path=str(Path(file.path).absolute()),
            format=_format(file, quantisation),
            fingerprint=file.sha256,
            bytes=file.file_bytes,
            plain_bytes=_plain_bytes(component, recipe),
        ),
        notes=(*component.notes, *_unused(recipe)),
    )


def _used(given: GivenFile) -> list[StoredTensor]:
    """What of the file the component is made of: a checkpoint holds other components, too."""
    pieces = [piece for target in given.recipe.targets for piece in target.pieces]
    pieces += [piece for target in given.recipe.targets for scale in target.scales for piece in scale.pieces]
    return [given.file.tensors[name] for name in dict.fromkeys(piece.source for piece in pieces)]


def _tensors(recipe: Recipe) -> dict[str, int]:
    """Bytes of each tensor that the module holds: a packed weight's scales are tensors of their own."""
    found: dict[str, int] = {}
    for target in recipe.targets:
        layer = target.name.rpartition(".")[0]
        scales = {f"{layer}.{each.name}": math.prod(each.shape) * item_bytes(each.dtype) for each in target.scales}
        found |= {target.name: target.bytes - sum(scales.values()), **scales}
    return found


def _with_kept(units: tuple[Stack, ...], kept: Mapping[str, int]) -> tuple[Stack, ...]:
    """The units with the bytes of these tensors in each block."""
    names, sizes = frozenset(block_names(units)), Counter[str]()
    for name, size in kept.items():
        sizes[home_unit(name, names)] += size
    return tuple(replace(unit, kept_bytes=tuple(sizes[name] for name in block_names((unit,)))) for unit in units)


def _plain_bytes(component: Component, recipe: Recipe) -> int:
    """What the same weights take unpacked, at the component's dtype."""
    bits = LOAD_DTYPE_BITS[component.load_dtype or "float32"]
    return sum(math.prod(each.shape) * bits // 8 if each.packed else each.bytes for each in recipe.targets)


def _format(file: WeightFile, quantisation: Quantisation) -> str:
    """In short: how most of its quantised weights are stored, or all of them where none is; like ``gguf Q4_K``."""
    stored = quantisation.bytes_by_format
    packed = {key: each for key, each in stored.items() if key not in PLAIN_FORMATS}
    most = Counter(packed or stored).most_common(1)[0][0]
    return f"{file.container} {most}"


def _unused(recipe: Recipe) -> tuple[str, ...]:
    count = len(recipe.unused)
    return (f"unused: {count} tensor{'s' * (count > 1)} of its file",) if count else ()


def _bytes_by_format(tensors: Iterable[StoredTensor]) -> Counter[str]:
    found: Counter[str] = Counter()
    for tensor in tensors:
        found[tensor.format] += tensor.bytes
    return found
