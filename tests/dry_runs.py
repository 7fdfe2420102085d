"""Dry runs of tiny model directories for the tests, and the same uses recorded in a real run."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from roost.api.models.inspect import inspect_model, profile_of
from roost.blocks import block_names
from roost.facts.model import Inventory
from roost.facts.request import Workload
from roost.pipelines.build import build_pipeline
from roost.pipelines.classes import component_class
from roost.pipelines.entries import wrap_entries
from roost.planner.leaf_level import at_leaf_level
from roost.probes.dry_run import DryRunOptions, dry_run
from roost.probes.dry_run.entry_calls import TracedComponent, made_up_arguments, weights_bytes
from roost.probes.dry_run.uses import UseLog
from roost.profiles.class_facts import load_class_facts
from roost.trace import Trace
from tiny_models import FAMILIES, build

_FOLDER = tempfile.TemporaryDirectory(prefix="roost-dry-run-")  # removed when the process ends

SIX_FAMILIES = ("wan2.2", "flux", "sdxl", "sd3", "qwen-image", "ltx")


class RealWorld(TorchDispatchMode):
    """Runs everything for real and lets an observer hear of it, as the fake world does."""

    def __init__(self) -> None:
        super().__init__()
        self.observer: Any = None
        self.value_reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.observer is not None:
            self.observer.record(func, args, kwargs or {}, out)
        return out


@functools.cache
def tiny_directory(name: str) -> Path:
    """Family ``name`` saved to disk; one for all tests of a process."""
    return build(name, Path(_FOLDER.name) / name)


@functools.cache
def tiny_inventory(name: str) -> Inventory:
    return inspect_model(tiny_directory(name), dtype="bfloat16")


def tiny_workload(name: str, **changed: Any) -> Workload:
    """The family's small call, guidance on where its profile says so."""
    size = FAMILIES[name].size
    default = profile_of(tiny_inventory(name)).workload
    sizes = {"width": size["width"], "height": size["height"], "frames": size.get("num_frames"), "steps": 4, "batch": 1}
    return Workload(**{**sizes, "guidance": default.guidance, **changed})


def tiny_options(name: str) -> DryRunOptions:
    more = {key: value for key, value in FAMILIES[name].options.items() if key == "max_sequence_length"}
    return DryRunOptions(guidance_argument=profile_of(tiny_inventory(name)).guidance_argument, more=more)


@functools.cache
def tiny_trace(name: str) -> Trace:
    return trace_tiny(name, tiny_workload(name))


def trace_tiny(name: str, workload: Workload) -> Trace:
    return dry_run(tiny_directory(name), tiny_inventory(name), workload, load_class_facts(), tiny_options(name))


@functools.cache
def trace_tiny_at_leaf_level(name: str) -> Trace:
    """The trace of the family whose denoisers and text encoders are traced by the layers below their blocks."""
    fine = at_leaf_level(tiny_inventory(name), [each.name for each in tiny_inventory(name).components])
    return dry_run(tiny_directory(name), fine, tiny_workload(name), load_class_facts(), tiny_options(name))


def real_pipeline(name: str) -> Any:
    """The family's pipeline with its real weights, every component loaded as the runtime loads it.

    A new one each time: some models keep positions from one call to the next.
    """
    modules = {}
    for component in tiny_inventory(name).components:
        found: Any = component_class(component.library, component.class_name)
        dtype = getattr(torch, component.load_dtype or "float32")
        modules[component.name] = found.from_pretrained(tiny_directory(name), subfolder=component.name, dtype=dtype)
        modules[component.name].eval().requires_grad_(False)
    return build_pipeline(tiny_directory(name), modules)


def real_uses(name: str) -> UseLog:
    """The uses of a real run, each recorded by the dry run's own recorder without any replay."""
    pipeline, world = real_pipeline(name), RealWorld()
    components = [
        TracedComponent(
            name=each.name,
            module=getattr(pipeline, each.name),
            blocks=block_names(each.units),
            kin=each.name,
            loaded_bytes=weights_bytes(getattr(pipeline, each.name)),
        )
        for each in tiny_inventory(name).components
    ]
    log = UseLog(world, replaying=False)  # type: ignore[arg-type]
    with torch.no_grad(), world, log.watch(components):
        pipeline(**made_up_arguments(pipeline, tiny_workload(name), tiny_options(name)))
    return log


def real_sequence(name: str) -> list[tuple[str, str]]:
    """Component and method of every entry of a real run, in order, those inside another left out."""
    pipeline, entries, running = real_pipeline(name), [], []

    def around(component: str, method: str, call: Any, args: Any, kwargs: Any) -> Any:
        if not running:
            entries.append((component, method))
        running.append(component)
        try:
            return call(*args, **kwargs)
        finally:
            running.pop()

    undoers = [
        wrap_entries(getattr(pipeline, each.name), functools.partial(around, each.name))
        for each in tiny_inventory(name).components
    ]
    try:
        pipeline(**made_up_arguments(pipeline, tiny_workload(name), tiny_options(name)))
    finally:
        for undo in undoers:
            undo()
    return entries
