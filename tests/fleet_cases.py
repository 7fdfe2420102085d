"""Model directories of every pipeline class that runs tiny, and each planned for workers and for one alone."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image

import tiny_picture_pipelines
import tiny_sound_pipelines
import tiny_unet_pipelines
import tiny_video_inputs
from clips import moving_frames, write_folder
from pipeline_cases import CASES, Case
from random_weights import fill_with_random_weights
from roost.api.requests.request import RunRequest
from roost.cli.app import run
from roost.plan import PlanDocument, read_plan
from tiny_models import FAMILIES, build

FRAMES = 9
STEPS = 2
TINY = ("--ram", "16GiB", "--headroom", "0", "--no-measured")
LAYOUTS = {"three": (3, "roles"), "two": (2, "roles"), "shared": (3, "shared")}


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetCase:
    """A model directory's maker, the words that plan a small call of it, and what the call is given."""

    build: Callable[[Path], object]
    planned: tuple[str, ...]
    prompt: str | None = "a fox"
    pictures: tuple[str, ...] = ()
    suffix: str = ".png"
    video: bool = False
    steps: int = STEPS

    def request(self, folder: Path, name: str | None = None, **more: Any) -> RunRequest:
        """The small call, with its pictures made in ``folder``, where the output goes too."""
        given = tuple(f"{name}={_clip(folder) if self.video else _picture(folder)}" for name in self.pictures)
        prompts = (self.prompt,) if self.prompt else ()
        path = None if name is None else folder / f"{name}{self.suffix}"
        return RunRequest(**{"prompts": prompts, "output": path, "images": given, **more})


_FOLDER = tempfile.TemporaryDirectory(prefix="roost-fleet-cases-")  # removed when the process ends


@functools.cache
def model_of(name: str) -> Path:
    """The directory of a case's model; one for all tests of a process, and for nobody to change."""
    model = Path(_FOLDER.name) / name.replace(" ", "-") / "model"
    FLEET_CASES[name].build(model)
    return model


def fleet_plan(model: Path, case: FleetCase, layout: str, *more: str, vram: str = "64MiB") -> PlanDocument:
    """The plan of a fleet of emulated cards, by the name of one of ``LAYOUTS``."""
    cards, name = LAYOUTS[layout]
    return _plan(model, case, "--fleet", f"{cards} x emulated", "--layout", name, "--vram", vram, *more)


def one_plan(model: Path, case: FleetCase, *more: str) -> PlanDocument:
    """The plan of one card that holds everything."""
    return _plan(model, case, "--gpu", "emulated", "--vram", "1GiB", *more)


def _plan(model: Path, case: FleetCase, *words: str) -> PlanDocument:
    path = model.with_suffix(".yaml")
    code = run(["plan", str(model), *TINY, *case.planned, "--steps", str(case.steps), *words, "-o", str(path)])
    assert code == 0, words
    return read_plan(path)


def _picture(folder: Path) -> Path:
    path = folder / "start.png"
    Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 50).convert("RGB").save(path)
    return path


def _clip(folder: Path) -> Path:
    return write_folder(folder / "frames", moving_frames(FRAMES))


def _saved(make: Callable[[], Any], directory: Path) -> None:
    torch.manual_seed(0)
    pipeline = make()
    fill_with_random_weights(pipeline.components)
    pipeline.save_pretrained(directory)


def _controlled() -> StableDiffusionControlNetPipeline:
    parts = tiny_unet_pipelines.stable_diffusion().components
    return StableDiffusionControlNetPipeline(**parts, controlnet=ControlNetModel.from_unet(parts["unet"]))


def _of_case(case: Case) -> FleetCase:
    return FleetCase(
        build=functools.partial(_saved, case.make),
        planned=tuple(case.planned),
        prompt=case.prompt,
        pictures=case.pictures,
        suffix=case.suffix,
    )


def _of_family(name: str) -> FleetCase:
    return _sized(functools.partial(build, name), video="num_frames" in FAMILIES[name].size)


def _sized(build: Callable[[Path], object], *, video: bool, **more: Any) -> FleetCase:
    planned = ("--size", "64x64", *(("--frames", str(FRAMES)) if video else ()))
    return FleetCase(build=build, planned=planned, suffix=".mp4" if video else ".png", **more)


FLEET_CASES: dict[str, FleetCase] = {
    **{name: _of_family(name) for name in FAMILIES},
    **{name: _of_case(case) for name, case in CASES.items()},
    **{
        name: _sized(make, video="Video" in name, pictures=("image",), steps=4)
        for name, make in tiny_picture_pipelines.BUILDERS.items()
    },
    "LTX2Pipeline": _sized(functools.partial(_saved, tiny_sound_pipelines.ltx2), video=True),
    "StableDiffusionControlNetPipeline": _sized(
        functools.partial(_saved, _controlled), video=False, pictures=("image",)
    ),
    "StableDiffusionXLInpaintPipeline": _sized(
        functools.partial(tiny_picture_pipelines.build_as, "sdxl", "StableDiffusionXLInpaintPipeline"),
        video=False,
        pictures=("image", "mask_image"),
        steps=4,
    ),
    "QwenImageEditPipeline": _sized(tiny_picture_pipelines.build_qwen_edit, video=False, pictures=("image",)),
    **{
        f"{name} of a video": FleetCase(
            build=make,
            planned=("--size", "64x64", "--frames", str(FRAMES)),
            suffix=".mp4",
            pictures=("video",),
            video=True,
        )
        for name, make in tiny_video_inputs.BUILDERS.items()
    },
}
