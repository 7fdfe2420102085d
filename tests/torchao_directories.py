"""Directories of tiny pipelines whose denoiser diffusers saved with torchao's weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import tiny_models
from roost.pipelines.quiet import quiet_libraries, quiet_torch

WEIGHT_ONLY = ("Int8WeightOnlyConfig", "Float8WeightOnlyConfig", "IntxWeightOnlyConfig")
DYNAMIC = "Int8DynamicActivationInt8WeightConfig"


def torchao_model(family: str, config: str, folder: Path) -> Path:
    """The family's tiny pipeline in bfloat16 in ``folder``, its denoiser quantised as ``config`` says."""
    tiny_models.build(family, folder, torch.bfloat16)
    with _quiet():
        from diffusers import DiffusionPipeline, TorchAoConfig
        from torchao import quantization  # slow to import

        pipeline: Any = DiffusionPipeline.from_pretrained(folder)
        name = "unet" if family == "sdxl" else "transformer"
        quantised = type(getattr(pipeline, name)).from_pretrained(
            folder / name,
            torch_dtype=torch.bfloat16,
            quantization_config=TorchAoConfig(getattr(quantization, config)()),
        )
        for each in (folder / name).glob("*.safetensors"):
            each.unlink()
        quantised.save_pretrained(folder / name)
    return folder


def loaded_by_diffusers(folder: Path) -> Any:
    """The pipeline as diffusers has it, held by nobody."""
    with _quiet():
        from diffusers import DiffusionPipeline

        pipeline: Any = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
        pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents(pipeline: Any, family: str) -> torch.Tensor:
    """What the family's small call gives before it is decoded."""
    call = tiny_models.default_call(family) | {"generator": torch.Generator("cpu").manual_seed(3)}
    with _quiet():
        found = pipeline(**call, output_type="latent")
    return found[0] if isinstance(found[0], torch.Tensor) else found[0][0]


@contextmanager
def _quiet() -> Iterator[None]:
    with quiet_libraries(), quiet_torch():
        yield
