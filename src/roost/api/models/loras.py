"""LoRAs of a plan: what each adds to which component, by putting them onto modules without weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from roost.api.models.traces import configs_of
from roost.errors import UsageError
from roost.facts.loras import Adapters, LoraFile
from roost.facts.model import ClassFacts, Component, Inventory
from roost.option_spelling import option
from roost.plan.loras import PlannedLora
from roost.planner.side_paths import buffer_bytes, with_buffers
from roost.probes.files.headers import read_header
from roost.profiles.class_facts import load_class_facts

if TYPE_CHECKING:
    from roost.pipelines.adapters import AddedAdapter, Modules


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptedModel:
    """A model with LoRAs: its inventory with their bytes, what each became, and what they add to which component."""

    inventory: Inventory
    loras: tuple[PlannedLora, ...] = ()
    adapters: tuple[Adapters, ...] = ()


def with_loras(inventory: Inventory, loras: Sequence[LoraFile]) -> AdaptedModel:
    """The model with ``loras``, put in by diffusers' own code into modules that nobody fills.

    Raises UsageError and InvalidFile for what doesn't fit the model, as its run would.
    """
    if not loras:
        return AdaptedModel(inventory=inventory)
    from roost.pipelines.adapters import adapter_names, add_adapter, check_loras, loadable_components
    from roost.pipelines.classes import pipeline_class  # imported here: these bring torch
    from roost.pipelines.quiet import quiet_libraries

    if inventory.pipeline is None:
        raise UsageError(f"LoRAs need a pipeline's class, and this model names none; leave {option('lora')} out.")
    with quiet_libraries():
        found = pipeline_class(inventory.pipeline)
        names = [each.name for each in inventory.components]
        check_loras(found, names, loras)
        modules = _modules(inventory, loadable_components(found, names))
        pairs = zip(loras, adapter_names(loras), strict=True)
        added = [(lora, add_adapter(found, modules, lora, name)) for lora, name in pairs]
    return _adapted(inventory, added, modules)


def _modules(inventory: Inventory, names: Sequence[str]) -> dict[str, Any]:
    from roost.pipelines.build import build_component  # imported here: it brings torch

    facts = load_class_facts()
    with configs_of(inventory) as model_dir:
        return {
            name: build_component(
                name, component, model_dir, facts.get(component.class_name, ClassFacts()), component.tensors
            )
            for name in names
            for component in (inventory.component(name),)
        }


def _adapted(inventory: Inventory, added: Sequence[tuple[LoraFile, AddedAdapter]], modules: Modules) -> AdaptedModel:
    from roost.pipelines.adapters import adapters_of, is_fused  # imported here: it brings torch

    loras = [lora for lora, _ in added]
    fused = {
        name: is_fused(lora, loras, name, plain=inventory.component(name).quantization is None)
        for lora, each in added
        for name in each.components
    }
    adapters = tuple(
        adapters_of(name, modules[name], _element_bytes(inventory.component(name), loras))
        for name, into in fused.items()
        if not into
    )
    planned = tuple(
        PlannedLora(
            path=str(lora.path.absolute()),
            sha256=lora.sha256,
            scale=lora.scale,
            component=name,
            fused=fused[name],
            bytes=_bytes_of(each.name, next((one for one in adapters if one.component == name), None)),
        )
        for lora, each in added
        for name in each.components
    )
    return AdaptedModel(inventory=with_buffers(_marked(inventory, fused), adapters), loras=planned, adapters=adapters)


def _marked(inventory: Inventory, fused: Mapping[str, bool]) -> Inventory:
    def marked(component: Component) -> Component:
        if component.name not in fused:
            return component
        return replace(component, lora="fused" if fused[component.name] else "beside")

    return replace(inventory, components=tuple(map(marked, inventory.components)))


def _bytes_of(adapter: str, adapters: Adapters | None) -> int:
    return buffer_bytes(each for each in (adapters.paths if adapters else ()) if each.adapter == adapter)


def _element_bytes(component: Component, loras: Sequence[LoraFile]) -> int | None:
    """Beside quantised weights adapters keep their file's dtype; None where they take the layer's."""
    if component.quantization is None:
        return None
    return 4 if any("F32" in read_header(str(each.path)).sizes for each in loras) else 2
