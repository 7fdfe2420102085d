"""``roost inspect``: what a model directory, a file of weights or a ComfyUI folder holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roost.api.requests.option_sets import FileOptions, WeightsOptions
from roost.cli.options import Command, Json, takes_options
from roost.cli.screen import show_folded, show_json, show_table
from roost.units import format_bytes

if TYPE_CHECKING:
    from roost.facts.model import Component, Inventory


InspectArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model directory, a hub id in the local cache, a name (roost models), a .safetensors or .gguf file, or"
        " a ComfyUI folder.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class InspectCommand(Command):
    model: InspectArgument
    weights: WeightsOptions
    files: FileOptions
    as_json: Json = False


@takes_options
def inspect(given: InspectCommand) -> None:
    """Show the components, files, sizes and block stacks of a model, from file headers alone."""
    from roost.api.models.inspect import inspect_model, inspection_document
    from roost.api.requests.known_values import dtype_of
    from roost.api.requests.weight_files import files_of

    files = files_of(given.files)
    if not files and _inspected_files(given):
        return
    inventory = inspect_model(given.model, variant=given.weights.variant, dtype=dtype_of(given.weights), files=files)
    if given.as_json:
        show_json(inspection_document(inventory))
    else:
        _show(inventory)


def _inspected_files(given: InspectCommand) -> bool:
    """Whether the model is a file of weights or a folder of such, which is then shown."""
    from roost.api.models.files.comfy_folders import folder_document, inspect_folder, is_comfy_folder
    from roost.api.models.files.inspect_files import file_document, inspect_file, is_weight_file
    from roost.api.requests.known_values import dtype_of
    from roost.cli.views.files import show_file, show_folder
    from roost.errors import UsageError
    from roost.option_spelling import given as typed

    is_file = is_weight_file(given.model)
    if not is_file and not is_comfy_folder(given.model):
        return False
    if given.weights.variant is not None:
        raise UsageError(f"{typed('variant', given.weights.variant)}: files of weights have no variants. Leave it out.")
    dtype = dtype_of(given.weights)
    if is_file:
        file = inspect_file(given.model, dtype=dtype)
        show_json(file_document(file)) if given.as_json else show_file(file)
    else:
        folder = inspect_folder(given.model, dtype=dtype)
        show_json(folder_document(folder)) if given.as_json else show_folder(folder)
    return True


def _show(inventory: Inventory) -> None:
    from roost.api.models.inspect import profile_of
    from roost.planner.rules.names import kind_of, load_order

    show_folded(
        f"{inventory.pipeline or 'no pipeline'} · {inventory.family or 'unknown family'}"
        f" · {len(inventory.components)} components"
        f" · {format_bytes(sum(each.bytes for each in inventory.components))} stored,"
        f" {format_bytes(inventory.load_bytes)} loaded"
    )
    order = load_order(inventory.components)
    components = [inventory.component(name) for name in order]
    show_table(
        ("Component", "Kind", "Stored", "Loaded", "Blocks"),
        [
            (
                each.name,
                kind_of(each),
                f"{format_bytes(each.bytes)} {'+'.join(sorted(each.bytes_by_dtype))}",
                f"{format_bytes(each.load_bytes)} {each.load_dtype or ''}",
                _blocks(each),
            )
            for each in components
        ],
        numbers=(2, 3),
    )
    show_folded(f"load order: {', '.join(order)}")
    for each in components:
        where = f"{each.library}.{each.class_name}" if each.library else each.class_name
        show_folded(f"class  {each.name}: {where}, {_files(each)}, trunk {format_bytes(each.trunk_bytes)}")
    for each in components:
        for note in each.notes:
            show_folded(f"note: {each.name}: {note}")
    if profile_of(inventory).fsdp:
        show_folded("note: its DiTs may be sharded over several GPUs (fsdp), under torchrun.")
    for name in inventory.custom:
        show_folded(f"note: {name} is custom code; it is never run.")
    for warning in inventory.warnings:
        show_folded(f"warning: {warning}")


def _files(component: Component) -> str:
    if component.source is not None:
        return f"from {Path(component.source.path).name} ({component.source.format})"
    return "1 file" if len(component.files) == 1 else f"{len(component.files)} files"


def _blocks(component: Component) -> str:
    counts = [stack.count for stack in component.stacks]
    return f"{sum(counts)} in {len(counts)} stacks" if len(counts) > 2 else " + ".join(map(str, counts)) or "none"
