"""Files of weights in place of a component's own: planned, and run by every strategy with the same bits."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import torch

import roost
import tiny_models
from given_files_matrix import FAMILIES, FORMATS, denoiser, made_world
from roost.api.models.inspect import inspect_model
from roost.pipelines.formats.modules import build_from_file
from roost.plan import PlanDocument
from single_file_worlds import World, of_module
from tiny_models import default_call

STRATEGIES = ("resident", "component-offload", "snapshot-offload", "layerwise-offload")
# The cells that are run each time; the others show nothing that one of these doesn't.
_SEEN = {
    ("wan2.1", "GGUF Q4_0"),
    ("qwen-image", "Comfy fp8 scaled, new"),
    ("sd3", "GGUF Q8_0"),
    ("sdxl", "Comfy fp8 scaled, old"),
    ("ltx", "fp8 cast"),
    ("sd3", "plain"),
    ("ltx", "Comfy int8"),
}
CELLS = [
    pytest.param(family, form, marks=() if (family, form) in _SEEN else pytest.mark.slow)
    for family in FAMILIES
    for form in FORMATS
]
_WORLDS: dict[str, World] = {}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Any:
    def get(family: str) -> World:
        if family not in _WORLDS:
            _WORLDS[family] = made_world(family, tmp_path_factory.mktemp(family.replace(".", "-")))
        return _WORLDS[family]

    yield get
    _WORLDS.clear()


def _plan(family: str, made: World, file: Path, strategy: str) -> PlanDocument:
    size = {key: value for key, value in tiny_models.FAMILIES[family].size.items() if key != "num_frames"}
    frames = {"frames": 9} if "num_frames" in tiny_models.FAMILIES[family].size else {}
    return roost.make_plan(
        made.folder,
        gpu="emulated",
        vram="4GiB",
        headroom=0,
        size=(size["width"], size["height"]),
        steps=2,
        dtype="float32",
        set=f"{denoiser(family)}={strategy}",
        files={denoiser(family): file},
        measured=False,
        policy="rules",
        **frames,
    )


def _output(pipeline: Any, family: str) -> torch.Tensor:
    call = default_call(family) | {"generator": torch.Generator("cpu").manual_seed(3), "output_type": "latent"}
    found = pipeline(**call)
    return found[0] if isinstance(found[0], torch.Tensor) else found[0][0]


@pytest.mark.parametrize(("family", "form"), CELLS)
def test_every_strategy_has_the_bits_of_the_same_layers_without_roost(
    family: str, form: str, worlds: Any, tmp_path: Path
) -> None:
    made = worlds(family)
    file = FORMATS[form](made, family, tmp_path)
    outputs = []
    for strategy in STRATEGIES:
        pipeline = roost.load_pipeline(_plan(family, made, file, strategy))
        outputs.append(_output(pipeline, family))
        pipeline.roost.close()
    given = inspect_model(made.folder, dtype="float32", files={denoiser(family): file}).given[denoiser(family)]
    module = build_from_file(of_module(denoiser(family), made.module, made.folder), given.file, given.recipe)
    alone = _alone(made, denoiser(family), module)
    for strategy, output in zip(STRATEGIES, outputs, strict=True):
        assert torch.equal(output, _output(alone, family)), strategy


def _alone(made: World, name: str, module: torch.nn.Module) -> Any:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(made.folder)
    pipeline.register_modules(**{name: _aligned(module)})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _aligned(module: torch.nn.Module) -> torch.nn.Module:
    """Weights copied out of the mapped file, where they lie unaligned, and kernels round differently."""
    for each in (*module.parameters(), *module.buffers()):
        each.data = each.data.clone()
    return module
