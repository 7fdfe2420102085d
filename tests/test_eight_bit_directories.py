"""Directories whose weights are plain casts to 8 bits: streamed so, with the bits of what the library loads."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import torch
from safetensors.torch import load_file, save_file

import roost
from roost.api.models.inspect import inspect_model
from roost.pipelines.formats.linears import CastLinear
from roost.plan import PlanDocument
from tiny_models import build, default_call
from torchao_directories import latents, loaded_by_diffusers

STRATEGIES = ("resident", "component-offload", "snapshot-offload", "layerwise-offload,resident_blocks=1")
Made = Callable[..., Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Directories by family and 8-bit dtype; not to be changed."""
    return functools.cache(
        lambda family, dtype="float8_e4m3fn": cast_model(family, dtype, tmp_path_factory.mktemp("m") / family)
    )


def cast_model(family: str, dtype: str, folder: Path) -> Path:
    """The family's tiny pipeline in bfloat16, matrices of its denoiser and text encoders cast to 8 bits."""
    build(family, folder, torch.bfloat16)
    for component in ("transformer", "unet", "text_encoder"):
        for file in (folder / component).glob("*.safetensors"):
            stored = load_file(file)
            cast = {key: each.to(getattr(torch, dtype)) if each.dim() == 2 else each for key, each in stored.items()}
            save_file(cast, file, metadata={"format": "pt"})
    return folder


def planned(folder: Path, family: str, choice: str = "transformer=resident", **more: Any) -> PlanDocument:
    call = default_call(family)
    frames = {"frames": call["num_frames"]} if "num_frames" in call else {}
    memory: dict[str, Any] = {"gpu": "emulated", "vram": "1GiB", "headroom": 0, "ram": "8GiB", "measured": False}
    size = (call["width"], call["height"])
    return roost.make_plan(folder, **{"set": choice, "size": size, "steps": 2, **memory, **frames, **more})


CELLS = [
    pytest.param("flux", "float8_e4m3fn"),
    pytest.param("wan2.1", "float8_e5m2"),
    *(pytest.param(each, "float8_e4m3fn", marks=pytest.mark.slow) for each in ("sd3", "sdxl", "qwen-image", "ltx")),
]


@pytest.mark.dealt(2)
@pytest.mark.parametrize(("family", "dtype"), CELLS)
def test_every_strategy_has_the_bits_of_the_weights_cast_as_they_load(family: str, dtype: str, made: Made) -> None:
    folder = made(family, dtype)
    right = latents(loaded_by_diffusers(folder), family)
    name = "unet" if family == "sdxl" else "transformer"
    for strategy in STRATEGIES:
        pipeline = roost.load_pipeline(planned(folder, family, f"{name}={strategy}"))
        assert any(isinstance(each, CastLinear) for each in getattr(pipeline, name).modules())
        assert torch.equal(latents(pipeline, family), right), strategy
        pipeline.roost.close()


def test_inspect_says_what_loads_and_what_can_stream(made: Made) -> None:
    folder = made("flux")
    found = inspect_model(folder).component("transformer")
    module = loaded_by_diffusers(folder).transformer
    assert found.load_bytes == sum(each.numel() * 2 for each in module.parameters())
    linear = sum(each.weight.numel() for each in module.modules() if isinstance(each, torch.nn.Linear))
    assert found.stream_bytes == found.load_bytes - linear
    assert inspect_model(folder).component("vae").stream_bytes is None


def test_a_plan_counts_what_is_stored_everywhere(made: Made) -> None:
    folder = made("flux")
    plan = planned(folder, "flux", "transformer=layerwise-offload,resident_blocks=0")
    inspected = inspect_model(folder).component("transformer")
    component = plan.components["transformer"]
    assert component.load_bytes == inspected.stream_bytes
    assert sum(stack.bytes for stack in component.stacks) < 0.6 * sum(stack.bytes for stack in inspected.stacks)
    assert component.source is not None
    assert (component.source.own, component.source.plain_bytes) == (True, inspected.load_bytes)
    assert component.source.path == "transformer/diffusion_pytorch_model.safetensors"
    assert plan.components["vae"].source is None


def test_a_plan_runs_where_the_model_has_moved_to(made: Made, tmp_path: Path) -> None:
    import shutil

    plan = planned(made("flux"), "flux")
    moved = Path(shutil.copytree(made("flux"), tmp_path / "moved"))
    pipeline = roost.load_pipeline(plan, model=moved)
    assert torch.equal(latents(pipeline, "flux"), latents(loaded_by_diffusers(moved), "flux"))
    pipeline.roost.close()


def test_a_plan_by_the_rules_loads_them_as_the_library_does(made: Made) -> None:
    plan = planned(made("flux"), "flux", policy="rules")
    component = plan.components["transformer"]
    assert component.source is None
    assert component.load_bytes == inspect_model(made("flux")).component("transformer").load_bytes


@pytest.mark.slow
def test_trials_run_on_them(made: Made) -> None:
    found = roost.bench(
        str(made("flux")), gpu="emulated", vram="64MiB", headroom=0, size=(64, 64), steps=2, strategies="search",
        rounds=1, trial_steps=1,
    )  # fmt: skip
    assert found.winner


def test_files_that_hold_more_than_the_layers_load_as_the_library_does(made: Made, tmp_path: Path) -> None:
    folder = cast_model("flux", "float8_e4m3fn", tmp_path / "m")
    (file,) = (folder / "transformer").glob("*.safetensors")
    save_file({**load_file(file), "more.weight": torch.zeros(4, 4)}, file, metadata={"format": "pt"})
    assert planned(folder, "flux").components["transformer"].source is None
