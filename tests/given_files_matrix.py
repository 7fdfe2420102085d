"""Denoisers of tiny models as files of every format that runs: what the tables in docs/ and the tests go by."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

import stored_weights
import tiny_models
from single_file_worlds import LAYOUTS, State, World, matrices, scaled_fp8, world

FAMILIES = tuple(LAYOUTS)
_ARCHITECTURES = {"wan2.1": "wan", "qwen-image": "qwen_image", "ltx": "ltxv", "sd3": "sd3", "sdxl": "sdxl"}

Write = Callable[[World, str, Path], Path]


def denoiser(family: str) -> str:
    """The component that the file is for."""
    return "unet" if family == "sdxl" else "transformer"


def _gguf(kind: str) -> Write:
    def write(made: World, family: str, folder: Path) -> Path:
        kinds = dict.fromkeys(matrices(made.original), kind)
        return stored_weights.write_gguf(folder / f"{kind}.gguf", _ARCHITECTURES[family], made.original, kinds)

    return write


def _plain(made: World, family: str, folder: Path) -> Path:
    return stored_weights.write_safetensors(folder / "plain.safetensors", made.original)


def _cast(made: World, family: str, folder: Path) -> Path:
    state = {**made.original, **{name: made.original[name].to(torch.float8_e4m3fn) for name in matrices(made.original)}}
    return stored_weights.write_safetensors(folder / "cast.safetensors", state)


def _comfy_old(made: World, family: str, folder: Path) -> Path:
    state: State = {**made.original, "scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}
    for name in matrices(made.original):
        state[name], scale = scaled_fp8(made.original[name])
        state[f"{name.removesuffix('.weight')}.scale_weight"] = scale
    return stored_weights.write_safetensors(folder / "old.safetensors", state)


def _comfy_new(made: World, family: str, folder: Path) -> Path:
    state = dict(made.original)
    for name in matrices(made.original):
        layer = name.removesuffix(".weight")
        state[name], state[f"{layer}.weight_scale"] = scaled_fp8(made.original[name])
        state[f"{layer}.comfy_quant"] = _marker("float8_e4m3fn")
    return stored_weights.write_safetensors(folder / "new.safetensors", state)


def _int8(made: World, family: str, folder: Path) -> Path:
    state = dict(made.original)
    for name in matrices(made.original):
        layer, weight = name.removesuffix(".weight"), made.original[name].float()
        scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-9) / 127
        state[name] = (weight / scale).round().to(torch.int8)
        state[f"{layer}.weight_scale"], state[f"{layer}.comfy_quant"] = scale, _marker("int8_tensorwise")
    return stored_weights.write_safetensors(folder / "int8.safetensors", state)


def _marker(form: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps({"format": form}).encode()), dtype=torch.uint8)


FORMATS: Mapping[str, Write] = {
    "plain": _plain,
    "GGUF Q8_0": _gguf("Q8_0"),
    "GGUF Q4_0": _gguf("Q4_0"),
    "GGUF Q5_1": _gguf("Q5_1"),
    "fp8 cast": _cast,
    "Comfy fp8 scaled, old": _comfy_old,
    "Comfy fp8 scaled, new": _comfy_new,
    "Comfy int8": _int8,
}


def made_world(family: str, folder: Path) -> World:
    """The family's tiny pipeline in ``folder``, and its denoiser by the names of original files."""
    tiny_models.build(family, folder)
    return world(family, folder)
