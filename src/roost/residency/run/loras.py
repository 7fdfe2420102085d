"""Components loaded with their LoRAs: fused into plain weights, or computed beside them, before anything is placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from roost.errors import InvalidFile, UsageError
from roost.facts.loras import LoraFile
from roost.option_spelling import option
from roost.pipelines.adapters import (
    AddedAdapter,
    activate,
    adapter_names,
    add_adapter,
    fuse_adapter,
    is_fused,
    loadable_components,
)
from roost.pipelines.classes import pipeline_class
from roost.plan import ComponentPlan, PlanDocument
from roost.residency.run.components import LoadComponent, finish_component, read_component
from roost.residency.run.sources.shells import build_shell
from roost.shell_quoting import shown_path


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedLora:
    """A LoRA, the components that it went into, beside which of them it is computed, and as what adapter.

    ``unused`` of its ``layers`` fit nothing.
    """

    file: LoraFile
    adapter: str
    components: tuple[str, ...]
    beside: tuple[str, ...]
    layers: int
    unused: int


class LoraLoader:
    """Loads components as ``read`` does and gives them ``loras``; ``applied`` says what became of each.

    Components that a LoRA may go into are in host memory together until each is placed. What is computed beside a
    layer lies in the layer's own block, and moves with it. Of components that are ``away`` modules without weights
    take the layers that a file has for them.
    """

    def __init__(
        self,
        plan: PlanDocument,
        loras: Sequence[LoraFile],
        read: LoadComponent = read_component,
        away: Mapping[str, ComponentPlan] | None = None,
    ) -> None:
        self.applied: list[AppliedLora] = []
        self._plan, self._loras, self._read = plan, loras, read
        self._class: Any = pipeline_class(plan.model.pipeline)
        self._loadable = loadable_components(self._class, plan.components)
        self._away = dict(away or {})
        self._waiting: dict[str, torch.nn.Module] = {}
        self._scales: dict[str, dict[str, float]] = {}  # of what is computed beside each component

    def __call__(self, name: str, plan: ComponentPlan, model_dir: Path) -> torch.nn.Module:
        """See ``load_component``; raises InvalidFile too for a LoRA that doesn't fit, UsageError for one that can't be
        had so."""
        if name not in self._loadable:
            return finish_component(name, self._read(name, plan, model_dir), plan)
        if not self._waiting:
            components = self._plan.components
            self._waiting = {each: self._read(each, components[each], model_dir) for each in self._loadable}
            others = {
                each: self._without_weights(each, model_dir) for each in loadable_components(self._class, self._away)
            }
            for lora, adapter in zip(self._loras, adapter_names(self._loras), strict=True):
                self.applied.append(self._apply(lora, adapter, others))
        module = self._waiting.pop(name)
        if name in self._scales:
            activate(self._class, name, module, self._scales[name])
        return finish_component(name, module, plan)

    def _without_weights(self, name: str, model_dir: Path) -> torch.nn.Module:
        return build_shell(name, self._away[name], model_dir, {}).to("meta")

    def _apply(self, lora: LoraFile, adapter: str, others: Mapping[str, torch.nn.Module]) -> AppliedLora:
        added = add_adapter(self._class, {**self._waiting, **others}, lora, adapter)
        added = replace(added, components=tuple(each for each in added.components if each not in others))
        beside = tuple(name for name in added.components if self._stays_beside(name, lora))
        fused = {name: self._waiting[name] for name in added.components if name not in beside}
        try:
            fuse_adapter(self._class, fused, lora.scale)
        except Exception as error:  # the libraries raise every kind for weights that they can't add to
            line = " ".join(str(error).split())[:150]
            raise InvalidFile(
                f"--lora {shown_path(lora.path)} can't be fused into {', '.join(fused)}: {type(error).__name__}:"
                f" {line}; run with {option('fuse', False)}, which computes it beside the weights."
            ) from error
        for name in beside:
            self._scales.setdefault(name, {})[adapter] = lora.scale
        return _applied(lora, added, beside)

    def _stays_beside(self, name: str, lora: LoraFile) -> bool:
        if is_fused(lora, self._loras, name, plain=fuses_exactly(self._waiting[name])):
            return False
        _check_unrounded(name, self._plan.components[name])
        return True


def fuses_exactly(module: torch.nn.Module) -> bool:
    """Whether all its weights are plain ones, of two bytes or more: a LoRA rounds no more than their own dtype does."""
    weights = (*module.parameters(), *module.buffers())
    plain = all(type(each) in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer) for each in weights)
    return plain and all(each.element_size() > 1 for each in module.parameters())


def _check_unrounded(name: str, plan: ComponentPlan) -> None:
    if plan.storage is not None:
        raise UsageError(
            f"{option('fuse', False)}: the plan rounds {name} to 8 bits, and a LoRA goes in before that; leave it out,"
            f" or plan again without {option('allow', 'fp8')}."
        )


def _applied(lora: LoraFile, added: AddedAdapter, beside: tuple[str, ...]) -> AppliedLora:
    return AppliedLora(
        file=lora,
        adapter=added.name,
        components=added.components,
        beside=beside,
        layers=added.layers,
        unused=added.unused,
    )
