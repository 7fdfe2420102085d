"""All components in one file: planned and run from the command line like the directory of the same weights."""

import json
from pathlib import Path

import numpy
import pytest

pytest.importorskip("diffusers")

from diffusers import DiffusionPipeline
from PIL import Image

import tiny_models
from checkpoints import published_of, write_checkpoint
from random_weights import fill_with_random_weights
from roost.api.models.files import bases, inspect_files
from roost.cli.app import run
from roost.probes.recognition.known import KnownLayouts
from small_model import edit_json
from tiny_unet_pipelines import stable_diffusion

_PLANNED = (
    "--gpu",
    "emulated",
    "--vram",
    "1GiB",
    "--dtype",
    "fp32",
    "--size",
    "64x64",
    "--steps",
    "2",
    "--no-measured",
)
_RUN = ("--prompt", "a fox", "--seed", "4")
_TINY = {"sdxl": "sdxl", "sd3.5-medium": "sd3"}


def _directory(model: str, folder: Path) -> Path:
    if model in _TINY:
        return tiny_models.build(_TINY[model], folder)
    pipeline: DiffusionPipeline = stable_diffusion()
    fill_with_random_weights(pipeline.components)
    pipeline.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "model",
    ["sdxl", pytest.param("sd1.5", marks=pytest.mark.slow), pytest.param("sd3.5-medium", marks=pytest.mark.slow)],
)
def test_a_checkpoint_is_planned_and_run_as_the_directory_of_its_weights(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = _directory(model, tmp_path / "whole")
    layout, published = write_checkpoint(tmp_path / "all.safetensors", model, folder), published_of(folder, model)
    if model == "sd1.5":  # whose files hold no checker, and whose runs do without
        edit_json(folder / "model_index.json", {"safety_checker": [None, None]})
    monkeypatch.setattr(bases, "load_published_model", lambda name: published)
    monkeypatch.setattr(inspect_files, "_layouts", lambda: KnownLayouts((layout,)))
    assert run(["plan", "all.safetensors", *_PLANNED, "-o", "all.yaml"]) == 0
    assert "from all.safetensors (safetensors F32)" in capsys.readouterr().out
    lacking = run(["run", "all.yaml", *_RUN, "-o", "none.png"])
    assert lacking != 0
    assert "tokenizer/ (CLIPTokenizer)" in capsys.readouterr().err
    assert run(["run", "all.yaml", *_RUN, "--tokenizers", "whole", "-o", "planned.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["output"]
    assert run(["run", "all.safetensors", *_PLANNED, *_RUN, "--tokenizers", "whole", "-o", "typed.png"]) == 0
    assert run(["run", "whole", *_PLANNED, *_RUN, "-o", "whole.png"]) == 0
    planned, typed, whole = (numpy.asarray(Image.open(f"{name}.png")) for name in ("planned", "typed", "whole"))
    assert whole.std() > 0
    assert (planned == whole).all()
    assert (typed == whole).all()
