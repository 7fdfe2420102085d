"""Traces kept in the user's cache directory, a JSON file each, named after all that decides them. No torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from roost.errors import RoostError
from roost.facts.model import Component, GivenFile, Inventory
from roost.facts.request import Workload
from roost.plan import write_text_atomically
from roost.probes.dry_run.options import DryRunOptions
from roost.probes.model.directory import ModelDirectory
from roost.regular_files import read_regular
from roost.trace import Trace, trace_from_json, trace_to_json
from roost.units import MiB

# Raise it when a dry run of the same model would give other figures.
TRACE_VERSION = 5
_MOST_BYTES = 256 * MiB


def trace_key(
    inventory: Inventory,
    workload: Workload,
    options: DryRunOptions,
    versions: Mapping[str, str],
    weightless: Mapping[str, str],
) -> str:
    """A name for the trace of ``workload``: equal for the same configs, dtypes, arguments and library versions.

    ``weightless`` are ``weightless_digests``: a tokenizer decides how long a prompt is.
    """
    # The index says which class a scheduler or tokenizer is.
    deciding = ("config.json", "model_index.json")
    configs = {name: file.sha256 for name, file in inventory.files.items() if name.endswith(deciding)}
    facts = {
        "trace_version": TRACE_VERSION,
        "pipeline": inventory.pipeline,
        "scalars": {name: repr(value) for name, value in inventory.scalars.items()},
        "configs": configs,
        "components": {each.name: _component_facts(each, inventory) for each in inventory.components},
        **({"given": {name: _given_facts(each) for name, each in inventory.given.items()}} if inventory.given else {}),
        "weightless": {name: weightless.get(name) for name in inventory.weightless},
        "workload": asdict(workload),
        "options": repr(options),
        "versions": dict(versions),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def weightless_digests(inventory: Inventory) -> dict[str, str]:
    """A hash of the files of each component without weights; of a model known by its name none are there."""
    if inventory.path is None:
        return {}
    directory = ModelDirectory(Path(inventory.path))
    return {name: directory.content_digest(name) for name in inventory.weightless if directory.has_folder(name)}


def read_trace(folder: Path, key: str) -> Trace | None:
    """The trace kept under ``key``; None when there is none, or none that can be read."""
    try:
        return trace_from_json(json.loads(read_regular(_path(folder, key), _MOST_BYTES)))
    except (OSError, ValueError, RecursionError, RoostError):
        return None


def write_trace(folder: Path, key: str, trace: Trace) -> None:
    """Keeps the trace; a cache that can't be written is done without."""
    text = json.dumps(trace_to_json(trace), separators=(",", ":"))
    with contextlib.suppress(OSError, RoostError):
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(_path(folder, key), text)


def _component_facts(component: Component, inventory: Inventory) -> list[object]:
    units = [[unit.name, unit.count, *unit.leaves] for unit in component.units]
    facts = [component.library, component.class_name, component.load_dtype, component.quantization, units]
    quantised = component.quantization is not None
    return [
        *facts,
        *(inventory.files[name].sha256 for name in component.files if quantised and name in inventory.files),
    ]


def _given_facts(given: GivenFile) -> list[object]:
    """What a given file makes of a component: other blocks are dequantised otherwise."""
    return [[each.name, each.format, each.dtype, each.bytes] for each in given.recipe.targets]


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.json"
