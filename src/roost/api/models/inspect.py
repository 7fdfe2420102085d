"""Inspecting: a model directory's inventory, and the JSON object that ``roost inspect --json`` prints."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from roost.api.models.files.bases import base_of
from roost.api.models.files.composed import GivenDtypes, as_the_others_load, read_runnable, with_files
from roost.api.models.files.eight_bits import keep_what_can, keeping_8_bits, with_stream_bytes
from roost.api.models.files.inspect_files import component_detail
from roost.api.models.files.others import Recipes
from roost.api.models.files.recipes import recipe_of
from roost.errors import PlanMismatch
from roost.facts.model import ClassFacts, Component, Inventory, Makes, ModelProfile, PublishedModel
from roost.facts.request import STRATEGIES
from roost.option_spelling import file_option
from roost.plan import PlanDocument
from roost.planner.rules.names import base_name, group_of, kind_of, load_order, suffix
from roost.probes.model.components import Wanted
from roost.probes.model.inventory import read_inventory
from roost.probes.model.structure import read_structure
from roost.profiles.class_facts import load_class_facts, load_pipeline_facts
from roost.profiles.models import fallback_profile, load_model_profiles, recognise
from roost.profiles.published import model_names
from roost.profiles.usual_tensors import usual_tensors
from roost.shell_quoting import shown_path


def inspect_model(
    model: str | Path,
    *,
    variant: str | None = None,
    dtype: str | None = None,
    files: Mapping[str, Path] | None = None,
    load_dtypes: Mapping[str, str | None] | None = None,
    in_8_bits: Collection[str] = (),
) -> Inventory:
    """What the model directory, the hub id in the local cache, or the model of that name holds, without its weights.

    ``files`` are those of components whose weights are not the model's own, ``load_dtypes`` theirs in a plan;
    ``in_8_bits`` are components that keep their own files' 8 bits. Raises InvalidFile or UsageError for a directory,
    variant or file that can't be used. Imports neither torch nor diffusers, unless a file's recipe is new.
    """
    base, class_facts = base_of(str(model), files or {}), load_class_facts()
    source, files = base.source, base.files
    inventory = read_inventory(
        source,
        Wanted(variant=variant, dtype=dtype, elsewhere=files.keys()),
        class_facts=class_facts,
        recognise=recognise,
        usual_of=usual_tensors,
    )
    if isinstance(source, PublishedModel):
        inventory = replace(inventory, fingerprint=read_structure(source, inventory, class_facts))
    if files:
        read = {name: read_runnable(name, path) for name, path in files.items()}
        dtypes = GivenDtypes(files=read, typed=dtype, planned=load_dtypes or {})
        plain = inspect_model(inventory.family) if inventory.family in model_names() else None
        inventory = with_files(
            as_the_others_load(inventory, dtypes, plain), read, Recipes(source=source, family=inventory.family).of
        )
    if not isinstance(source, PublishedModel):
        components = (
            with_stream_bytes(each, source, class_facts.get(each.class_name, ClassFacts()))
            for each in inventory.components
        )
        inventory = replace(inventory, components=tuple(components))
    return keeping_8_bits(inventory, in_8_bits, partial(recipe_of, source)) if in_8_bits else inventory


def in_8_bits_where_stored(inventory: Inventory) -> Inventory:
    """The inventory of a directory with the linear layers in 8 bits that its files have so. May import torch."""
    if inventory.path is None or inventory.layout != "diffusers":
        return inventory
    return keep_what_can(inventory, partial(recipe_of, Path(inventory.path)))


def inspect_planned(plan: PlanDocument, model: str | Path, *, dtype: str | None = None) -> Inventory:
    """The plan's model as it is at ``model``, with the files that the plan has for components.

    Raises as above, and PlanMismatch for a file that isn't there.
    """
    for name, path in plan.given_files.items():
        if not path.exists():
            raise PlanMismatch(
                f"{shown_path(path)}, from which this plan takes {name!r}, is not there; say where it is now with"
                f" {file_option(name)}."
            )
    return inspect_model(
        model,
        variant=plan.model.variant,
        dtype=dtype,
        files=plan.given_files,
        load_dtypes=plan.load_dtypes,
        in_8_bits=plan.kept_as_stored.keys(),
    )


def structure_fingerprint(inventory: Inventory) -> str:
    """The fingerprint that an inventory of the same model by its name has; ``inventory`` is of a directory."""
    return read_structure(Path(inventory.path or ""), inventory, load_class_facts())


def profile_of(inventory: Inventory) -> ModelProfile:
    """The recognised family's profile, else the general one for images or videos."""
    if inventory.family is not None:
        return load_model_profiles()[inventory.family]
    return fallback_profile(inventory.pipeline, {each.name: each.class_name for each in inventory.components})


def makes_of(inventory: Inventory) -> Makes:
    """What the model's pipeline makes, as the library's class says, or else its family's profile."""
    facts = load_pipeline_facts().get(inventory.pipeline or "")
    return facts.makes if facts is not None else profile_of(inventory).task


def takes_prompt(inventory: Inventory) -> bool:
    """Whether the model's pipeline takes a prompt, as all but a few do."""
    facts = load_pipeline_facts().get(inventory.pipeline or "")
    return facts is None or facts.prompt


def why_not_run(component: Component) -> str | None:
    """Why this version plans the component and can't run it; None where it can."""
    if component.tensors is None:
        return "has only pickled weights, which Roost never opens; convert it to safetensors"
    if component.stopped is not None:
        return f"is quantised ({component.quantization!r}), which Roost plans but can't run: {component.stopped}"
    return None


def inspection_document(inventory: Inventory) -> dict[str, object]:
    """The inventory as one JSON object, schema 1; InvalidFile where a quantised component's markers are malformed."""
    root = Path(inventory.path) if inventory.path is not None else None
    return {
        "schema": 1,
        "path": inventory.path,
        "layout": inventory.layout,
        "pipeline": inventory.pipeline,
        "family": inventory.family,
        "fingerprint": inventory.fingerprint,
        "total_bytes": sum(each.bytes for each in inventory.components),
        "total_load_bytes": inventory.load_bytes,
        "load_order": list(load_order(inventory.components)),
        "weightless": list(inventory.weightless),
        "absent": list(inventory.absent),
        "custom": list(inventory.custom),
        "warnings": list(inventory.warnings),
        "strategies_run": dict.fromkeys(STRATEGIES, True),
        "components": [_component_document(each, root) for each in inventory.components],
    }


def _quantization_detail(component: Component, root: Path | None) -> object:
    if component.source is not None:
        return component.quantization_detail
    return None if root is None else component_detail(root, component)


def _component_document(component: Component, root: Path | None) -> dict[str, object]:
    return {
        "name": component.name,
        "library": component.library,
        "class": component.class_name,
        "kind": kind_of(component),
        "group": group_of(component),
        "base_name": base_name(component.name),
        "suffix": suffix(component.name),
        "bytes": component.bytes,
        "bytes_by_dtype": dict(sorted(component.bytes_by_dtype.items())),
        "load_bytes": component.load_bytes,
        "load_dtype": component.load_dtype,
        "stream_bytes": component.stream_bytes,
        "tensors": component.tensors,
        "files": list(component.files),
        "variant": component.variant,
        "quantization": component.quantization,
        "quantization_detail": _quantization_detail(component, root),
        "source": None if component.source is None else asdict(component.source),
        "runs": why_not_run(component) is None,
        "blocks": [
            {"stack": each.name, "count": each.count, "bytes": each.bytes, "block_bytes": list(each.block_bytes)}
            for each in component.stacks
        ],
        "trunk_bytes": component.trunk_bytes,
        "notes": list(component.notes),
    }
