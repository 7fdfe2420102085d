"""Pictures as a pipeline's input: which classes take and need them, how files become them, and what is refused."""

from __future__ import annotations

import functools
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from transformers.utils import is_torchvision_available

import roost
from live_pipelines import held_by
from plans import plan_for
from roost.api.models.inspect import profile_of
from roost.cli.app import run
from roost.errors import UsageError
from roost.pipelines.calls import GenerationRequest
from roost.pipelines.made_up import made_up_inputs
from roost.pipelines.quiet import quiet_libraries
from roost.pipelines.signatures import keeps_shape, needed_pictures, picture_arguments, picture_siblings, takes_several
from roost.residency.media.inputs import decode_picture, resized, shrunk
from roost.residency.run.calls import accepts
from roost.residency.run.generate import generate
from tiny_models import build
from tiny_picture_pipelines import BUILDERS, build_qwen_edit

SIZE = 64
Planned = Callable[[str], Path]


def _plan(model: Path, *, frames: bool, vram: str = "64MiB") -> Path:
    gpu = ("--gpu", "emulated", "--vram", vram, "--headroom", "0", "--dtype", "float32")
    workload = ("--size", f"{SIZE}x{SIZE}", "--steps", "4", *(("--frames", "9") if frames else ()))
    assert run(["plan", str(model), *gpu, *workload, "-o", str(model.with_suffix(".yaml"))]) == 0
    return model.with_suffix(".yaml")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """A plan, from a dry run, of a tiny pipeline by its class; the model lies beside it."""

    @functools.cache
    def make(pipeline: str) -> Path:
        model = BUILDERS[pipeline](tmp_path_factory.mktemp("pictures") / "model")
        return _plan(model, frames="Video" in pipeline)

    return make


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "start.png"
    Image.effect_mandelbrot((200, 120), (-2, -1, 1, 1), 50).convert("RGB").save(path)
    return path


def _record(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["run", *map(str, words), "--prompt", "a fox", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.dealt(3)
@pytest.mark.parametrize("name", BUILDERS)
def test_a_run_gives_what_the_pipeline_gives_for_the_picture_at_the_output_s_size(
    name: str, planned: Planned, picture: Path, capsys
) -> None:
    record = _record(capsys, planned(name), "--image", picture)
    with quiet_libraries():
        pipeline = DiffusionPipeline.from_pretrained(planned(name).with_suffix(""))
    more: dict[str, Any] = {"image": Image.open(picture).convert("RGB")}
    if accepts(type(pipeline), "width"):
        more |= {"width": SIZE, "height": SIZE}  # the library's own processor makes the size
    else:
        more["image"] = more["image"].resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    frames = 9 if "Video" in name else None
    request = GenerationRequest(prompt="a fox", steps=4, frames=frames, more=more, **_guidance(planned(name)))
    with torch.no_grad(), held_by(pipeline, plan_for(pipeline)) as held:
        assert generate(held, request).digest == record["digest"]
    assert "encode image" in [each["name"] for each in record["stages"]]
    assert [(each["argument"], each["path"]) for each in record["pictures"]] == [("image", str(picture))]


def _guidance(plan: Path) -> dict[str, Any]:
    """The guidance of the plan, under the argument that the family has for it."""
    document = roost.load_plan(plan)
    argument = profile_of(roost.inspect_model(plan.with_suffix(""))).guidance_argument
    return {"guidance": document.workload.guidance, "guidance_argument": argument}


@pytest.mark.slow
def test_another_picture_gives_another_output_and_a_last_one_too(planned, picture, tmp_path, capsys) -> None:
    plan = planned("WanImageToVideoPipeline")
    other = tmp_path / "other.png"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(other)
    runs = [("--image", picture), ("--image", other), ("--image", picture, "--image", f"last_image={other}")]
    digests = [_record(capsys, plan, *words)["digest"] for words in runs]
    assert len(set(digests)) == 3


def test_texts_are_encoded_ahead_beside_a_picture_too(planned, picture, capsys) -> None:
    plan = planned("WanImageToVideoPipeline")
    both = _record(capsys, plan, "--image", picture, "--seed", 1, "--seed", 2)
    assert both["texts"]["encoded_ahead"] is True
    alone = [_record(capsys, plan, "--image", picture, "--seed", seed)["digest"] for seed in (1, 2)]
    assert [each["digest"] for each in both["generations"]] == alone


def _whole_png() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, format="PNG")
    return buffer.getvalue()


def _png_that_says(width: int, height: int) -> bytes:
    """A PNG whose header gives another size than its data have."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    whole = _whole_png()
    return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no whole picture"),
        (b"not a picture", "no whole picture"),
        (_whole_png()[:500], "no whole picture"),
        (_png_that_says(60_000, 60_000), "million pixels"),
        (_png_that_says(100_000, 8), "100000×8"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "no whole picture"),
    ],
    ids=["empty", "text", "cut off", "a bomb", "a line", "postscript"],
)
def test_a_file_that_is_no_usable_picture_is_one_line_and_exit_2(content, said, planned, tmp_path, capsys) -> None:
    path = tmp_path / "start.png"
    path.write_bytes(content)
    capsys.readouterr()
    assert run(["run", str(planned("FluxImg2ImgPipeline")), "--prompt", "a fox", "--image", str(path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_pipe_in_a_picture_s_place_is_refused_and_not_waited_for(planned, tmp_path, capsys) -> None:
    path = tmp_path / "start.png"
    os.mkfifo(path)
    capsys.readouterr()
    assert run(["run", str(planned("FluxImg2ImgPipeline")), "--prompt", "a fox", "--image", str(path)]) == 2
    assert "is a FIFO" in capsys.readouterr().err


def _refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert run(["run", *map(str, words), "--prompt", "a fox", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_picture_that_is_missing_or_of_no_use_is_said_before_anything_loads(planned, picture, capsys) -> None:
    flux, wan = planned("FluxImg2ImgPipeline"), planned("WanImageToVideoPipeline")
    assert "needs 'image'; give --image PATH" in _refused(capsys, flux)
    assert "takes one picture as 'image'" in _refused(capsys, flux, "--image", picture, "--image", picture)
    assert "has no 'last_image'; it takes image" in _refused(capsys, flux, "--image", f"last_image={picture}")
    assert "needs 'image'" in _refused(capsys, wan, "--image", f"last_image={picture}")


def test_a_picture_for_a_text_to_image_pipeline_is_refused_with_what_takes_one(picture, tmp_path, capsys) -> None:
    plan = _plan(build("flux", tmp_path / "model"), frames=False)
    error = _refused(capsys, plan, "--image", picture)
    assert "FluxPipeline takes no picture or video; leave --image out" in error
    assert "FluxImg2ImgPipeline" in error


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is installed")
def test_an_editor_whose_processor_needs_a_missing_package_says_which_before_weights_load(
    picture, tmp_path, capsys
) -> None:
    plan = _plan(build_qwen_edit(tmp_path / "model"), frames=False, vram="1GiB")
    assert "needs torchvision, also for pictures alone" in roost.load_plan(plan).warnings[0]
    capsys.readouterr()
    assert run(["run", str(plan), "--prompt", "a fox", "--image", str(picture)]) == 2
    error = capsys.readouterr().err
    assert "component 'processor': Qwen2VLProcessor needs torchvision" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "takes", "needs"),
    [
        ("FluxPipeline", (), ()),
        ("FluxImg2ImgPipeline", ("image",), ("image",)),
        ("FluxKontextPipeline", ("image",), ()),
        ("FluxFillPipeline", ("image", "mask_image"), ("image", "mask_image")),
        ("FluxControlPipeline", ("control_image",), ("control_image",)),
        ("FluxControlNetImg2ImgPipeline", ("image", "control_image"), ("image", "control_image")),
        ("Flux2Pipeline", ("image",), ()),
        ("StableDiffusionXLControlNetPipeline", ("image",), ("image",)),
        ("StableDiffusionXLInpaintPipeline", ("image", "mask_image"), ("image", "mask_image")),
        ("StableDiffusion3Img2ImgPipeline", ("image",), ("image",)),
        ("QwenImageEditPipeline", ("image",), ("image",)),
        ("QwenImageEditPlusPipeline", ("image",), ("image",)),
        ("WanImageToVideoPipeline", ("image", "last_image"), ("image",)),
        ("WanPipeline", (), ()),
        ("LTXImageToVideoPipeline", ("image",), ("image",)),
        ("LTXConditionPipeline", ("image",), ()),
        ("StableVideoDiffusionPipeline", ("image",), ("image",)),
    ],
)
def test_what_a_class_takes_and_needs(name: str, takes: tuple[str, ...], needs: tuple[str, ...]) -> None:
    found = getattr(diffusers, name)
    assert picture_arguments(found) == takes
    assert needed_pictures(found) == needs


def test_classes_that_look_at_pictures_keep_their_shape_and_some_take_several() -> None:
    several = {name for name in dir(diffusers) if name.endswith("Pipeline") and _safely(takes_several, name)}
    assert {"Flux2Pipeline", "QwenImageEditPlusPipeline"} <= several
    assert not several & {"FluxImg2ImgPipeline", "QwenImageEditPipeline", "WanImageToVideoPipeline"}
    assert keeps_shape(diffusers.QwenImageEditPipeline)
    assert keeps_shape(diffusers.FluxKontextPipeline)
    assert not keeps_shape(diffusers.FluxImg2ImgPipeline)
    assert picture_siblings(diffusers.WanPipeline) == ["WanImageToVideoPipeline", "WanVideoToVideoPipeline"]


def _safely(ask: Callable[[type], bool], name: str) -> bool:
    return ask(type(name, (), {}))


def test_a_picture_is_upright_and_without_alpha_and_a_mask_is_gray() -> None:
    wide = Image.new("RGBA", (40, 20), (255, 0, 0, 128))
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    wide.save(buffer, format="PNG", exif=exif)
    upright = decode_picture(buffer.getvalue(), "start.png")
    assert (upright.mode, upright.size) == ("RGB", (20, 40))
    assert decode_picture(buffer.getvalue(), "mask.png", mask=True).mode == "L"


def test_pictures_are_made_as_large_as_the_plan_and_never_larger() -> None:
    wide = Image.new("RGB", (400, 100))
    assert resized(wide, 64, 48).size == (64, 48)
    small = shrunk(wide, 64, 64)
    assert small.size == (128, 32)
    assert shrunk(small, 640, 640) is small


def test_a_picture_with_too_few_pixels_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 300)).save(buffer, format="PNG")
    with pytest.raises(UsageError, match="8×300"):
        decode_picture(buffer.getvalue(), "thin.png")


@pytest.mark.parametrize(
    ("name", "planned_for"),
    [
        ("Flux2Pipeline", set()),
        ("Flux2KleinPipeline", set()),
        ("FluxKontextPipeline", {"image"}),
        ("FluxInpaintPipeline", {"image", "mask_image"}),
    ],
)
def test_a_plan_counts_pictures_where_most_runs_have_some(name: str, planned_for: set[str]) -> None:
    assert set(made_up_inputs(getattr(diffusers, name), 64, 64, None)) == planned_for
