"""LoRAs fused into components as they load, by diffusers' own code, before anything is placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from roost.errors import InvalidFile, UsageError
from roost.pipelines.classes import pipeline_class
from roost.pipelines.internals.of_diffusers import expected_components, lora_components
from roost.plan import ComponentPlan, PlanDocument
from roost.residency.run.loader import finish_component, load_component, read_component
from roost.residency.run.lora_files import LoraFile
from roost.shell_quoting import shown_path

_DENOISERS = ("transformer", "unet")


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedLora:
    """A LoRA, the components that it went into, and how many of its layers fit nothing there."""

    file: LoraFile
    components: tuple[str, ...]
    layers: int
    unused: int


def check_loras(found: Any, plan: PlanDocument, loras: Sequence[LoraFile]) -> None:
    """UsageError when the pipeline class takes no LoRA, or none for a named component."""
    if not loras:
        return
    loadable = _loadable(found, plan)
    if not loadable:
        raise UsageError(f"{found.__name__} takes no LoRA in diffusers; leave --lora out.")
    for lora in loras:
        if lora.component is not None and lora.component not in loadable:
            raise UsageError(f"--lora {lora.component}=…: {found.__name__} takes LoRAs for {', '.join(loadable)} only.")


class FusingLoader:
    """Loads components as ``load_component`` does, with LoRAs fused; ``fused`` says into which.

    Components that a LoRA may go into are in host memory together until each is placed.
    """

    def __init__(self, plan: PlanDocument, loras: Sequence[LoraFile]) -> None:
        self.fused: list[FusedLora] = []
        self._plan, self._loras = plan, loras
        self._class: Any = pipeline_class(plan.model.pipeline)
        self._loadable = _loadable(self._class, plan)
        self._waiting: dict[str, torch.nn.Module] = {}

    def __call__(self, name: str, plan: ComponentPlan, model_dir: Path) -> torch.nn.Module:
        """See ``load_component``; raises InvalidFile too for a LoRA that doesn't fit."""
        if name not in self._loadable:
            return load_component(name, plan, model_dir)
        if not self._waiting:
            components = self._plan.components
            self._waiting = {each: read_component(each, components[each], model_dir) for each in self._loadable}
            for lora in self._loras:
                self.fused.append(self._fuse(lora))
        return finish_component(name, self._waiting.pop(name), plan)

    def _fuse(self, lora: LoraFile) -> FusedLora:
        expert = self._expert(lora)
        # diffusers knows one denoiser, by its name: another expert takes that name's place.
        modules = self._waiting if expert is None else {expert: self._waiting[lora.component or expert]}
        pipeline = _bare_pipeline(self._class, modules)
        path = lora.path.absolute()
        source = {"weight_name": path.name, "use_safetensors": True, "local_files_only": True}
        try:
            layers = _layers(pipeline.lora_state_dict(str(path.parent), **source))
            pipeline.load_lora_weights(str(path.parent), **source)
            unused = layers - sum(_adapted(each) for each in modules.values())
            filled = [name for name, adapters in pipeline.get_list_adapters().items() if adapters]
            wanted = [name for name in filled if expert is not None or lora.component in (None, name)]
            if wanted:
                pipeline.fuse_lora(components=wanted, lora_scale=lora.scale, safe_fusing=True)
            pipeline.unload_lora_weights()
        except Exception as error:  # the libraries raise every kind for a file that doesn't fit
            line = " ".join(str(error).split())[:150]
            raise InvalidFile(
                f"--lora {shown_path(lora.path)} can't be fused into {self._class.__name__}:"
                f" {type(error).__name__}: {line}; use a LoRA that was made for this model."
            ) from error
        if not wanted:
            meant = lora.component or " or ".join(modules)
            raise InvalidFile(f"--lora {shown_path(lora.path)} holds no weights for {meant} of this model.")
        names = tuple(wanted) if expert is None else (lora.component or expert,)
        return FusedLora(file=lora, components=names, layers=layers, unused=max(0, unused))

    def _expert(self, lora: LoraFile) -> str | None:
        """The main denoiser's name, when the LoRA is for another one of its class."""
        main = next((name for name in _DENOISERS if name in self._waiting), None)
        if lora.component is None or main is None or lora.component == main:
            return None
        return main if type(self._waiting[lora.component]) is type(self._waiting[main]) else None


def _layers(state: Any) -> int:
    """How many layers of the model a LoRA's tensors, renamed as diffusers does, are for."""
    tensors = state[0] if isinstance(state, tuple) else state  # some classes give alphas beside the tensors
    return len({name.partition(".lora")[0] for name in tensors if ".lora" in name})


def _adapted(module: torch.nn.Module) -> int:
    from peft.tuners.tuners_utils import BaseTunerLayer  # imported here: an extra that only LoRAs need

    return sum(isinstance(part, BaseTunerLayer) for part in module.modules())


def _loadable(found: Any, plan: PlanDocument) -> tuple[str, ...]:
    return tuple(name for name in lora_components(found) if name in plan.components)


def _bare_pipeline(found: Any, modules: Mapping[str, torch.nn.Module]) -> Any:
    """A pipeline that holds these modules and nothing else: all that diffusers' LoRA code looks at."""
    pipeline = found.__new__(found)
    pipeline.register_modules(**{**dict.fromkeys(expected_components(found)), **modules})
    return pipeline
