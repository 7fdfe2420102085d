"""Denoisers from files of their own, planned and run by every strategy, beside the same layers without Roost."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

import roost
import tiny_models
from given_files_matrix import denoiser
from roost.api.models.files.inspect_files import inspect_file
from roost.api.models.inspect import inspect_model
from roost.pipelines.formats.modules import build_from_file
from roost.pipelines.quiet import quiet_libraries
from roost.plan import PlanDocument
from single_file_worlds import World, of_module
from tiny_loras import lora_file
from tiny_models import default_call

STRATEGIES = ("resident", "component-offload", "snapshot-offload", "layerwise-offload")
_LORA_LAYERS = ("to_q", "to_v")
_SCALE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What held of one file: known and runnable by its header, a plan that fits, and the same bits, with a LoRA too."""

    inspect: bool
    plan: bool
    run: bool
    lora: bool


def tried(family: str, made: World, file: Path) -> Tried:
    """All of it, really done; what Roost refuses raises."""
    found = inspect_file(file)
    lora = lora_of(family, made)
    return Tried(
        inspect=found.quantisation.runs and found.content.component == denoiser(family),
        plan=plan_of(family, made, file, "layerwise-offload").fits,
        run=not others(family, made, file),
        lora=not others(family, made, file, lora),
    )


def others(family: str, made: World, file: Path, lora: Path | None = None) -> list[str]:
    """The strategies whose output differs from that of the same layers without Roost; ``lora`` is beside them."""
    alone = output_of(_alone(family, made, file, lora), family)
    differ = []
    for strategy in STRATEGIES:
        pipeline = roost.load_pipeline(plan_of(family, made, file, strategy, lora))
        try:
            if not torch.equal(output_of(pipeline, family), alone):
                differ.append(strategy)
        finally:
            pipeline.roost.close()
    return differ


def plan_of(
    family: str, made: World, file: Path, strategy: str, lora: Path | None = None, dtype: str = "float32"
) -> PlanDocument:
    """The rules' plan of the tiny pipeline with that file, its denoiser placed as asked."""
    size = tiny_models.FAMILIES[family].size
    more: dict[str, Any] = {"frames": size["num_frames"]} if "num_frames" in size else {}
    if lora is not None:
        more |= {"lora": f"{lora}:{_SCALE}", "fuse": False}
    return roost.make_plan(
        made.folder,
        gpu="emulated",
        vram="4GiB",
        headroom=0,
        size=(size["width"], size["height"]),
        steps=2,
        dtype=dtype,
        set=f"{denoiser(family)}={strategy}",
        files={denoiser(family): file},
        measured=False,
        policy="rules",
        **more,
    )


def output_of(pipeline: Any, family: str) -> torch.Tensor:
    """The latents of a seeded call of two steps."""
    call = default_call(family) | {"generator": torch.Generator("cpu").manual_seed(3), "output_type": "latent"}
    found = pipeline(**call)[0]
    latents: torch.Tensor = found if isinstance(found, torch.Tensor) else found[0]
    return latents


def lora_of(family: str, made: World) -> Path:
    """A small LoRA for the family's denoiser, beside its directory."""
    path = made.folder.parent / f"{made.folder.name}-lora.safetensors"
    if not path.exists():
        pipeline = DiffusionPipeline.from_pretrained(made.folder)
        lora_file(path, pipeline, {denoiser(family): _LORA_LAYERS})
    return path


def _alone(family: str, made: World, file: Path, lora: Path | None) -> Any:
    """The pipeline that nobody holds, with the same layers and diffusers' own unfused LoRA."""
    name = denoiser(family)
    given = inspect_model(made.folder, dtype="float32", files={name: file}).given[name]
    module = build_from_file(of_module(name, made.module, made.folder), given.file, given.recipe)
    pipeline = DiffusionPipeline.from_pretrained(made.folder)
    pipeline.register_modules(**{name: _aligned(module)})
    pipeline.set_progress_bar_config(disable=True)
    if lora is not None:
        with quiet_libraries():
            pipeline.load_lora_weights(lora.parent, weight_name=lora.name, adapter_name="tiny")
            pipeline.set_adapters(["tiny"], [_SCALE])
    return pipeline


def _aligned(module: torch.nn.Module) -> torch.nn.Module:
    """Weights copied out of the mapped file, where they lie unaligned, and kernels round differently."""
    for each in (*module.parameters(), *module.buffers()):
        each.data = each.data.clone()
    return module
