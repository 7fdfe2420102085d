"""The inventory of a model directory, from file headers and configs alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from roost.blocks import gap_bytes, leaf_stacks, stacks_and_units
from roost.errors import InvalidFile, UsageError
from roost.facts.model import ClassFacts, Component, Inventory, ModelProfile, PublishedModel, Recognise
from roost.option_spelling import given, option
from roost.probes.files.safe_files import listed, quoted, shown
from roost.probes.model.components import Wanted, read_components
from roost.probes.model.directory import ModelDirectory
from roost.probes.model.layout import DirectoryLayout, read_layout
from roost.probes.model.load_sizes import check_load_dtype, default_load_dtype, size_as_loaded
from roost.probes.model.published_directory import PublishedDirectory
from roost.probes.model.single_file import read_checkpoint_files
from roost.probes.model.stored import StoredComponent, check_elsewhere

_NAMED = 3
_MOST_COMPARED = 20_000  # tensors of a component


class UsualNames(Protocol):
    """What published components of one class have; see ``profiles.usual_tensors``."""

    def lacking(self, names: Collection[str]) -> list[str]: ...
    def unusual(self, names: Collection[str]) -> list[str]: ...


UsualOf = Callable[[str], UsualNames | None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizing:
    """What decides a component's load dtype and bytes."""

    dtype: str | None
    profile: ModelProfile | None
    class_facts: Mapping[str, ClassFacts]
    usual_of: UsualOf
    doubts: list[str]  # filled as components are sized


def read_inventory(
    source: Path | PublishedModel,
    wanted: Wanted,
    *,
    class_facts: Mapping[str, ClassFacts],
    recognise: Recognise,
    usual_of: UsualOf = lambda class_name: None,
) -> Inventory:
    """What the model directory at a path, or the one of a published model, holds and what it will occupy when loaded.

    InvalidFile or UsageError for a directory, variant or dtype that can't be used.
    """
    check_load_dtype(wanted.dtype)
    directory = PublishedDirectory(source) if isinstance(source, PublishedModel) else ModelDirectory(source)
    layout = read_layout(directory)
    weightless: list[str] = []
    if layout.kind == "single-file":
        check_elsewhere(layout, wanted.elsewhere)
        stored = _read_single_files(directory, layout, wanted.variant)
    else:
        stored, weightless = read_components(directory, layout, wanted, class_facts)
    if not stored:
        raise InvalidFile(
            f"{quoted(directory.path)} declares no component with weights. Give a whole pipeline's directory."
        )
    profile = recognise(layout.index, {each.name: each.config for each in stored})
    _log.info(
        "read %s: %s, family %s", directory.path, layout.pipeline or layout.kind, profile.key if profile else None
    )
    for each in stored:
        _log.debug("%s: %s in %s", each.name, each.class_name, each.files)
    sizing = _Sizing(dtype=wanted.dtype, profile=profile, class_facts=class_facts, usual_of=usual_of, doubts=[])
    components = tuple(_size_component(each, sizing) for each in stored)
    return Inventory(
        path=None if isinstance(source, PublishedModel) else str(source.absolute()),
        source="name" if isinstance(source, PublishedModel) else "directory",
        layout=layout.kind,
        pipeline=layout.pipeline,
        family=profile.key if profile else None,
        scalars=layout.scalars,
        components=components,
        weightless=tuple(weightless),
        absent=tuple(layout.absent),
        custom=tuple(layout.custom),
        files=dict(sorted(directory.files.items())),
        fingerprint=directory.fingerprint(),
        warnings=(*layout.warnings, *_quantised_warnings(stored), *sizing.doubts),
        bare=layout.bare,
    )


def _doubts(stored: StoredComponent, names: Collection[str], usual: UsualNames | None) -> Iterator[str]:
    """What its tensors make doubtful, compared with those of published models of its class."""
    if usual is None or stored.quantization is not None or len(names) > _MOST_COMPARED:
        return
    lacking, unusual = usual.lacking(names), usual.unusual(names)
    if lacking:
        yield (
            f"{stored.name} lacks {_count(lacking)} that other blocks have: a plan by search makes sure whether"
            f" {stored.class_name} has them, which would then be random"
        )
    if unusual:
        yield (
            f"{stored.name} holds {_count(unusual)} that no published {stored.class_name} has: unless its config asks"
            " for them, they are dropped as it loads"
        )


def _count(names: list[str]) -> str:
    return f"{len(names)} tensor{'s' * (len(names) > 1)} ({listed(names, _NAMED)})"


def _quantised_warnings(stored: list[StoredComponent]) -> list[str]:
    return [
        f"{each.name} is quantised ({shown(each.quantization)}): it is counted and planned as stored, and this version"
        f" can't run it: {each.packed.why_not}"
        for each in stored
        if each.quantization is not None and each.packed is not None and each.packed.why_not is not None
    ]


def _packed(stored: StoredComponent) -> Collection[str] | None:
    """Tensors that no loader casts: parts of quantised weights, or all (None) of what doesn't run."""
    if stored.packed is None:
        return ()
    return stored.packed.packed if stored.packed.why_not is None else None


def _dtype_of_packed(stored: StoredComponent, sizing: _Sizing) -> str | None:
    """What the quantised weights compute at; UsageError where another dtype is typed."""
    dtype = stored.packed.load_dtype if stored.packed is not None and stored.packed.why_not is None else None
    if dtype is not None and sizing.dtype not in (None, dtype):
        raise UsageError(
            f"{given('dtype', sizing.dtype)}: {stored.name} is quantised by torchao for {dtype}, and computes with no"
            f" other; leave it out, or give {option('dtype', dtype)}."
        )
    return dtype


def _read_single_files(
    directory: ModelDirectory, layout: DirectoryLayout, variant: str | None
) -> list[StoredComponent]:
    if variant is not None:
        raise UsageError(f"{given('variant', variant)}: single-file checkpoints have no variants. Leave it out.")
    stored, warnings = read_checkpoint_files(directory)
    layout.warnings += warnings
    return stored


def _size_component(stored: StoredComponent, sizing: _Sizing) -> Component:
    profile_dtypes = sizing.profile.load_dtypes if sizing.profile else {}
    asked = sizing.dtype or profile_dtypes.get(stored.base_name)
    facts = sizing.class_facts.get(stored.class_name)
    notes = [*stored.notes]
    by_name: Mapping[str, int] = {}
    bytes_by_dtype: dict[str, int] = {}
    if stored.sizes is not None:
        bytes_by_dtype = {dtype: sum(sizes.values()) for dtype, sizes in stored.sizes.items()}
        asked = _dtype_of_packed(stored, sizing) or asked or default_load_dtype(bytes_by_dtype)
        loaded = size_as_loaded(stored.sizes, asked, facts or ClassFacts(), packed=_packed(stored))
        by_name = loaded.by_name
        notes += loaded.notes
        sizing.doubts.extend(_doubts(stored, by_name, sizing.usual_of(stored.class_name)))
        if facts is None and stored.library is not None:
            notes.append(f"load bytes are uncertain: {quoted(stored.class_name)} is not in the class data")
    stacks, units = stacks_and_units(by_name)
    return Component(
        name=stored.name,
        library=stored.library,
        class_name=stored.class_name,
        position=stored.position,
        files=stored.files,
        variant=stored.variant,
        bytes=stored.pickled_bytes + sum(bytes_by_dtype.values()),
        bytes_by_dtype=bytes_by_dtype,
        tensors=None if stored.sizes is None else sum(map(len, stored.sizes.values())),
        load_dtype=asked,
        load_bytes=stored.pickled_bytes + sum(by_name.values()),
        stacks=stacks,
        units=units,
        leaves=() if stored.quantization else leaf_stacks(by_name, units),
        quantization=stored.quantization,
        stopped=None if stored.packed is None else stored.packed.why_not,
        unsought=stored.unsought,
        extra_bytes=gap_bytes(by_name.values()),
        notes=tuple(notes),
    )
