"""Tiny models of five families as original single files, and what a loader is asked of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

import original_layouts
import stored_weights
import tiny_models
from random_weights import fill_with_random_weights
from roost.facts.model import ClassFacts
from roost.facts.weight_files import Recipe, WeightFile
from roost.pipelines.formats.modules import build_from_file
from roost.pipelines.formats.recipes import derive_recipe
from roost.pipelines.formats.skeletons import ComponentConfig
from roost.probes.files.formats.weights import quantised_weights
from roost.profiles.class_facts import load_class_facts

State = dict[str, torch.Tensor]
Layout = Callable[[torch.nn.Module], State]


def unet_layout(module: Any) -> State:
    """As whole checkpoints of SD and SDXL name it."""
    attending = {index for index, block in enumerate(module.up_blocks) if hasattr(block, "attentions")}
    layers = module.config.layers_per_block
    state = original_layouts.unet(module.state_dict(), layers, attending)
    return {f"model.diffusion_model.{name}": each for name, each in state.items()}


LAYOUTS: Mapping[str, Layout] = {
    "wan2.1": lambda module: original_layouts.wan(module.state_dict()),
    "qwen-image": lambda module: dict(module.state_dict()),
    "ltx": lambda module: original_layouts.ltx(module.state_dict()),
    "sd3": lambda module: original_layouts.sd3(module.state_dict()),
    "sdxl": unet_layout,
}


@dataclass(frozen=True)
class World:
    """A tiny denoiser, its directory, and its weights by the names of the family's original files."""

    component: ComponentConfig
    module: Any
    original: State
    folder: Path

    def at(self, dtype: str) -> ComponentConfig:
        return replace(self.component, described=described(self.module, dtype))

    def load(self, file: WeightFile, dtype: str = "float32", *, with_data: bool = True) -> torch.nn.Module:
        component = self.at(dtype)
        return build_from_file(component, file, recipe_of(component, file), with_data=with_data)

    def by_diffusers(self, path: Path, dtype: str = "float32", **options: Any) -> State:
        """The state that diffusers makes of the same file."""
        kind = type(self.module)
        config, part = str(self.component.config_dir), self.component.name
        made = kind.from_single_file(
            str(path), config=config, subfolder=part, torch_dtype=getattr(torch, dtype), **options
        )
        return dict(made.state_dict())


def world(family: str, folder: Path, **changes: Any) -> World:
    """The denoiser of the family's tiny pipeline, its config with ``changes``."""
    pipeline: Any = tiny_models.FAMILIES[family].make()
    name = "unet" if family == "sdxl" else "transformer"
    if changes:
        old = getattr(pipeline, name)
        pipeline.register_modules(**{name: type(old).from_config({**old.config, **changes})})
    fill_with_random_weights(pipeline.components)
    module = getattr(pipeline, name)
    module.save_config(folder / name)
    return World(of_module(name, module, folder), module, LAYOUTS[family](module), folder)


def recipe_of(component: ComponentConfig, file: WeightFile) -> Recipe:
    """The recipe as a plan derives it: the header says what is quantised."""
    return derive_recipe(component, file, quantised_weights(file, file.path))


def of_module(name: str, module: Any, config_dir: Path, dtype: str = "float32") -> ComponentConfig:
    facts = load_class_facts().get(type(module).__name__, ClassFacts())
    return ComponentConfig(name=name, described=described(module, dtype), config_dir=config_dir, facts=facts)


def described(module: Any, dtype: str) -> Any:
    library = type(module).__module__.split(".")[0]
    return SimpleNamespace(library=library, class_name=type(module).__name__, load_dtype=dtype)


def matrices(state: Mapping[str, torch.Tensor], multiple: int = 32) -> list[str]:
    """Names of weights that a quantiser of blocks can take."""
    return [
        name
        for name, each in state.items()
        if each.ndim == 2 and name.endswith(".weight") and each.shape[1] % multiple == 0 and "embed" not in name
    ]


def scaled_fp8(weight: torch.Tensor, dtype: torch.dtype = torch.float8_e4m3fn) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and the scale of the tensor, as Comfy's converters make them."""
    scale = (weight.float().abs().amax() / torch.finfo(dtype).max).clamp(min=1e-12)
    return (weight.float() / scale).to(dtype), scale


def stored(path: Path) -> WeightFile:
    return stored_weights.read_gguf(path) if path.suffix == ".gguf" else stored_weights.read_safetensors(path)
