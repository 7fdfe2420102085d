"""``roost models`` and ``roost model-dir``: models known by name, and their directories as sparse files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from roost.cli.options import Json
from roost.cli.screen import show_json, show_table, show_text
from roost.units import format_bytes

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name that roost models lists.")]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty directory.")]
Sparse = Annotated[bool, typer.Option("--sparse", help="Write weight files as holes: real sizes, almost no disk.")]


def models(as_json: Json = False) -> None:
    """List the models that inspect and plan know by name, with nothing downloaded."""
    from roost.api.models.published import models_document

    document: Mapping[str, Any] = models_document()
    if as_json:
        show_json(document)
        return
    show_table(
        ("Name", "Task", "Stored", "Loaded", "Default workload"),
        [
            (
                each["name"],
                each["task"],
                format_bytes(each["bytes"]),
                format_bytes(each["load_bytes"]),
                _workload(each["workload"]),
            )
            for each in document["models"]
        ],
        numbers=(2, 3),
    )
    show_text("Plan one with: roost plan NAME --gpu rtx-4090 --ram 64GiB")
    show_text("Its components and their sizes: roost inspect NAME")


def model_dir(name: Name, directory: Directory, sparse: Sparse = False) -> None:
    """Write a model's directory for trying things: true configs, headers and sizes, weights that are all zeros.

    roost model-dir flux.1-dev ./flux --sparse
    """
    from roost.api.models.published import write_model_directory

    write_model_directory(name, directory, sparse=sparse)
    show_text(f"wrote {name} into {directory}; its weights are holes and its tokenizers small stand-ins")


def _workload(workload: Mapping[str, Any]) -> str:
    frames = f"×{workload['frames']}" if workload["frames"] else ""
    return f"{workload['width']}×{workload['height']}{frames}, {workload['steps']} steps"
