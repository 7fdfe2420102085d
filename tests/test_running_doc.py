"""What docs/running.md tells people to type works, on tiny models."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from clips import write_clip, write_folder
from live_pipelines import live_pipeline
from roost.cli.app import run
from tiny_loras import lora_file
from tiny_models import build
from tiny_picture_pipelines import build_wan_i2v
from tiny_video_inputs import BUILDERS

TEXT = (Path(__file__).parents[1] / "docs" / "running.md").read_text(encoding="utf-8")
# A plan with a prediction, for as many as share a call.
GROUPED = "grouped.yaml"
COMMANDS = re.findall(r"^    (roost .*)$", TEXT, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("running")
    options = shlex.split("--gpu emulated --vram 64MiB --headroom 0 --policy rules --size 64x64 --frames 9 --steps 2")
    models = {
        "wan.yaml": build("wan2.2", folder / "wan"),
        "i2v.yaml": build_wan_i2v(folder / "i2v"),
        "v2v.yaml": BUILDERS["WanVideoToVideoPipeline"](folder / "v2v"),
    }
    for plan, model in models.items():
        assert run(["plan", str(model), *options, "-o", str(folder / plan)]) == 0
    foreseen = [word for word in options if word not in ("--policy", "rules")]
    assert run(["plan", str(folder / "wan"), *foreseen, "--batch", "4", "-o", str(folder / GROUPED)]) == 0
    (folder / "prompts.txt").write_text("a red fox\n# a comment\na grey goose\n", encoding="utf-8")
    for number, name in enumerate(("start.png", "end.png")):
        Image.new("RGB", (200, 100), (200 * number, 80, 40)).save(folder / name)
    write_clip(folder / "clip.mp4")
    write_folder(folder / "frames")
    return folder


def test_the_document_has_commands_to_try() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_document_runs_and_leaves_its_output(command: str, folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    words = shlex.split(command)[1:]
    if "--batch" in words:
        words[words.index("wan.yaml")] = GROUPED
    if "--lora" in words:
        pytest.importorskip("peft", reason="LoRAs need peft: pip install 'roost[lora]'")
        for name in ("high.safetensors", "low.safetensors"):
            lora_file(folder / name, live_pipeline("wan2.2"), {"transformer": ("to_q", "to_v")})
    output = Path(words[words.index("-o") + 1])
    for left in folder.glob(f"{output.stem}*{output.suffix}"):
        left.unlink()
    assert run(words) == 0
    expected = (2 if "--prompts" in words else 1) * max(1, words.count("--seed"))
    assert len(list(folder.glob(f"{output.stem}*{output.suffix}"))) == expected
