"""The whole of a dry run: a pipeline is made and called in the fake world, and its entries are traced."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy
import torch

from roost.blocks import block_names, gap_bytes
from roost.errors import DryRunError, RefusedCall, RoostError
from roost.facts.model import ClassFacts, Component, GivenFile, Inventory
from roost.facts.request import Workload
from roost.pipelines.build import build_component, build_pipeline
from roost.pipelines.formats.modules import build_from_file
from roost.pipelines.formats.skeletons import ComponentConfig
from roost.pipelines.internals.of_torch import buffers_of, unfiled_names, without_modes
from roost.pipelines.internals.of_torchao import put_untouched
from roost.pipelines.linears import castable_linears
from roost.pipelines.quiet import quiet_libraries, quiet_torch
from roost.probes.dry_run.entry_calls import TracedComponent, made_up_arguments, weights_bytes
from roost.probes.dry_run.module_tensors import module_tensors
from roost.probes.dry_run.options import DryRunOptions
from roost.probes.dry_run.stand_in import cached_components, stand_in, still_videos
from roost.probes.dry_run.uses import UseLog
from roost.probes.dry_run.world import FakeWorld
from roost.shell_quoting import shown_path
from roost.trace import BlockLinears, LinearWeights, ModuleTensors, Trace, UnfiledBuffers

_LIBRARIES = ("torch", "diffusers", "transformers")


def trace_pipeline_call(
    model_dir: Path,
    inventory: Inventory,
    workload: Workload,
    class_facts: Mapping[str, ClassFacts],
    options: DryRunOptions,
) -> Trace:
    """See ``dry_run``."""

    def make(world: FakeWorld) -> tuple[Any, list[TracedComponent]]:
        components = build_components(model_dir, inventory, class_facts, world)
        found.extend(unfiled_buffers(each) for each in components)
        tensors.extend(each for each in map(module_tensors, components) if each is not None)
        return build_pipeline(model_dir, {each.name: each.module for each in components}), components

    found: list[UnfiledBuffers] = []
    tensors: list[ModuleTensors] = []
    trace = _trace(make, inventory, workload, options)
    return replace(trace, unfiled=tuple(found), tensors=tuple(tensors))  # a live pipeline's inventory has them already


def trace_live_call(pipeline: Any, inventory: Inventory, workload: Workload, options: DryRunOptions) -> Trace:
    """See ``dry_run_live``."""

    def make(world: FakeWorld) -> tuple[Any, list[TracedComponent]]:
        copied = stand_in(pipeline, world)
        copied.set_progress_bar_config(disable=True)
        return copied, [_traced_component(each, getattr(copied, each.name), each.name) for each in inventory.components]

    with _random_numbers_kept():
        trace = _trace(make, inventory, workload, options)
    return replace(trace, uncached=cached_components(pipeline))


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """The user's next random numbers are not the dry run's business, whichever library draws them."""
    drawn, drawn_by_numpy = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(drawn)
            numpy.random.set_state(drawn_by_numpy)


def _trace(
    make: Callable[[FakeWorld], tuple[Any, list[TracedComponent]]],
    inventory: Inventory,
    workload: Workload,
    options: DryRunOptions,
) -> Trace:
    """Calls the pipeline that ``make`` gives; whatever fails is a DryRunError with the reason."""
    _check_traceable(inventory)
    began_s = time.perf_counter()
    world = FakeWorld()
    log = UseLog(world)
    try:
        with quiet_libraries(), quiet_torch(), torch.no_grad(), world:
            pipeline, components = make(world)
            arguments = made_up_arguments(pipeline, workload, options)
            with log.watch(components), still_videos(pipeline):
                _call(pipeline, arguments, log)
    except DryRunError:
        raise
    except RoostError as error:
        raise DryRunError(f"{inventory.pipeline!r} can't be dry-run: {error}") from error
    except Exception as error:  # the models' own code raises every kind
        line = " ".join(str(error).split())[:300]
        raise DryRunError(f"{inventory.pipeline!r} can't be dry-run: {type(error).__name__}: {line!r}.") from error
    return Trace(
        uses=tuple(log.uses),
        sequence=tuple(log.sequence),
        variants=tuple(log.variants),
        workload=workload,
        source="dry-run",
        seconds=round(time.perf_counter() - began_s, 3),
        versions={library: version(library) for library in _LIBRARIES},
        linears=tuple(_linears_of(each) for each in components),
        kept_bytes=log.allocator.kept_bytes,
    )


def _call(pipeline: Any, arguments: Mapping[str, Any], log: UseLog) -> None:
    """Calls the pipeline; RefusedCall for what it says of its arguments, which it checks before it uses a component."""
    try:
        pipeline(**arguments)
    except ValueError as error:
        if log.uses:
            raise
        words = " ".join(str(error).split())[:300].rstrip(".")
        raise RefusedCall(type(pipeline).__name__, words) from error


def unfiled_buffers(component: TracedComponent) -> UnfiledBuffers:
    """What the component's module has beside what its files hold."""
    sizes = dict.fromkeys((None, *component.blocks), 0)
    seen: set[int] = set()
    owners = [(path, each) for path, each in component.module.named_modules() if unfiled_names(each)]
    for path, owner in owners:
        block = next((name for name in component.blocks if f"{path}.".startswith(f"{name}.")), None)
        for name in unfiled_names(owner):
            buffer = buffers_of(owner).get(name)
            if buffer is not None and id(buffer) not in seen:
                seen.add(id(buffer))
                sizes[block] += buffer.nbytes + gap_bytes((buffer.nbytes,))
    trunk_bytes = sizes.pop(None)
    return UnfiledBuffers(
        component=component.name,
        trunk_bytes=trunk_bytes,
        block_bytes={name: size for name, size in sizes.items() if name is not None and size},
    )


def _linears_of(component: TracedComponent) -> LinearWeights:
    found = {name: list(castable_linears(component.module.get_submodule(name))) for name in component.blocks}
    sizes = {name: [layer.weight.nbytes for layer in layers] for name, layers in found.items()}
    return LinearWeights(
        component=component.name,
        largest_bytes=max((size for each in sizes.values() for size in each), default=0),
        blocks=tuple(BlockLinears(block=name, bytes=sum(each), count=len(each)) for name, each in sizes.items()),
    )


def _check_traceable(inventory: Inventory) -> None:
    reason = None
    # What is in memory computes, or says itself why it can't be copied; a file's recipe says how it is built.
    quantized = next((each for each in inventory.components if each.stopped is not None), None)
    if inventory.layout != "diffusers" or inventory.pipeline is None:
        reason = "it has no model_index.json that names a pipeline"
    elif inventory.custom:
        reason = f"its component {inventory.custom[0]!r} is code of the directory, which Roost never runs"
    elif quantized is not None:
        reason = f"its component {quantized.name!r} is quantized ({quantized.quantization!r})"
    if reason is not None:
        raise DryRunError(f"{shown_path(inventory.path or '')} can't be dry-run: {reason}; plan with --policy rules.")


def build_components(
    model_dir: Path, inventory: Inventory, class_facts: Mapping[str, ClassFacts], world: FakeWorld
) -> list[TracedComponent]:
    """Every component with weights, without weights. Experts of one make share them."""
    built: dict[object, torch.nn.Module] = {}
    components = []
    for component in inventory.components:
        kin = _kin(component, model_dir, inventory.given.get(component.name))
        if kin in built:
            module = _sibling(built[kin])
        else:
            facts = class_facts.get(component.class_name, ClassFacts())
            module = built[kin] = _build(component, model_dir, facts, inventory)
            world.adopt(module)
        components.append(_traced_component(component, module, kin))
    return components


def _traced_component(component: Component, module: torch.nn.Module, kin: object) -> TracedComponent:
    return TracedComponent(
        name=component.name,
        module=module,
        blocks=block_names(component.units),
        leaves=component.leaf_level,
        kin=kin,
        loaded_bytes=weights_bytes(module),
    )


def _build(component: Component, model_dir: Path, facts: ClassFacts, inventory: Inventory) -> torch.nn.Module:
    given = inventory.given.get(component.name)
    if given is None:
        module = build_component(component.name, component, model_dir, facts, component.tensors)
        if component.quantization is not None:  # by torchao, since nothing else of a directory can be traced
            with without_modes():
                put_untouched(module, [Path(inventory.path or "") / each for each in component.files])
        return module
    config = ComponentConfig(name=component.name, described=component, config_dir=model_dir, facts=facts)
    with without_modes():  # a class of packed weights takes no fake tensor; what nobody touches takes no memory
        return build_from_file(config, given.file, given.recipe, with_data=False)


def _kin(component: Component, model_dir: Path, given: GivenFile | None) -> object:
    folder = model_dir / component.name
    config = (folder if folder.is_dir() else model_dir) / "config.json"
    stored = () if given is None else tuple((each.name, each.format, each.bytes) for each in given.recipe.targets)
    return (component.library, component.class_name, component.load_dtype, config.read_text(encoding="utf-8"), stored)


def _sibling(module: torch.nn.Module) -> torch.nn.Module:
    """Another object over the same parts: enough to be told apart, at no cost."""
    sibling = object.__new__(type(module))
    sibling.__dict__.update(vars(module))
    return sibling
