"""The inventory of a pipeline that is in memory already: what its modules are, without any file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from roost.blocks import gap_bytes, leaf_stacks, stacks_and_units
from roost.errors import UsageError
from roost.facts.model import Component, Inventory, Recognise
from roost.pipelines.formats.packed_tensors import is_packed, named_parts, own_class, stored_sizes
from roost.residency.hold.live_modules import held_modules
from roost.residency.weights.obstacles import foreign_weight


def read_live_inventory(pipeline: Any, recognise: Recognise) -> Inventory:
    """What ``pipeline`` holds, every component at the dtype it has now.

    UsageError for an object without ``components`` or without weights.
    """
    if not isinstance(getattr(pipeline, "components", None), Mapping):
        raise UsageError(f"{type(pipeline).__name__} has no components; attach a diffusers pipeline.")
    modules = held_modules(pipeline)
    if not modules:
        raise UsageError(f"no component of this {type(pipeline).__name__} has weights; there is nothing to place.")
    index = {"_class_name": type(pipeline).__name__, **_settings(pipeline)}
    index |= {name: [_library(each), type(each).__name__] for name, each in modules.items()}
    profile = recognise(index, {name: _settings(each) for name, each in modules.items()})
    names = list(pipeline.components)
    components = tuple(_component(name, each, names.index(name)) for name, each in modules.items())
    return Inventory(
        path=None,
        source="memory",
        layout="diffusers",
        pipeline=type(pipeline).__name__,
        family=profile.key if profile else None,
        scalars={},
        components=components,
        weightless=tuple(
            name for name, each in pipeline.components.items() if each is not None and name not in modules
        ),
        absent=tuple(name for name, each in pipeline.components.items() if each is None),
        custom=(),
        files={},
        fingerprint=_fingerprint(components),
    )


def host_bytes(pipeline: Any) -> int:
    """Host memory that the pipeline's weights take already."""
    parts = [part for each in held_modules(pipeline).values() for _, part in named_parts(each)]
    return sum(part.nbytes for part in parts if part.device.type == "cpu")


def _component(name: str, module: torch.nn.Module, position: int) -> Component:
    tensors = [part for _, part in named_parts(module)]
    by_dtype: Counter[str] = Counter()
    for tensor in tensors:
        by_dtype[str(tensor.dtype).removeprefix("torch.")] += tensor.nbytes
    sizes, quantization = stored_sizes(module), _quantization(module)
    stacks, units = stacks_and_units(sizes)
    return Component(
        name=name,
        library=_library(module),
        class_name=type(module).__name__,
        position=position,
        files=(),
        variant=None,
        bytes=sum(by_dtype.values()),
        bytes_by_dtype=dict(by_dtype),
        tensors=len(tensors),
        load_dtype=_load_dtype(by_dtype),
        load_bytes=sum(by_dtype.values()),
        stacks=stacks,
        units=units,
        leaves=() if quantization else leaf_stacks(sizes, units),
        quantization=quantization,
        extra_bytes=gap_bytes(tensor.nbytes for tensor in tensors),
    )


def _quantization(module: torch.nn.Module) -> str | None:
    """The class of its packed weights, or what else only its own class can read."""
    packed = next((each for each in (*module.parameters(), *module.buffers()) if is_packed(each)), None)
    return foreign_weight(module) if packed is None else own_class(type(packed)).__name__


def _load_dtype(by_dtype: Mapping[str, int]) -> str | None:
    floating = {name: size for name, size in by_dtype.items() if name in ("bfloat16", "float16", "float32")}
    return max(floating, key=lambda name: floating[name], default=None)


def _library(module: torch.nn.Module) -> str:
    return type(module).__module__.partition(".")[0]


def _settings(owner: Any) -> dict[str, object]:
    """The configuration that a library's class carries; a user's own class has none."""
    config = getattr(owner, "config", None)
    if isinstance(config, Mapping):
        return dict(config)
    to_dict = getattr(config, "to_dict", None)
    return dict(to_dict()) if callable(to_dict) else {}


def _fingerprint(components: tuple[Component, ...]) -> str:
    text = "\n".join(f"{each.name} {each.class_name} {each.load_dtype} {each.units}" for each in components)
    return hashlib.sha256(text.encode()).hexdigest()
