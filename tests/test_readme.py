"""What the README tells a newcomer to type works, on the demo's model in place of the real ones."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import roost
from build_demo_model import build_demo_model
from field_files import flux_files
from planted_bench import STUB
from roost.cli.app import run
from roost.profiles.store import MeasuredStore
from roost.tune.trials.runner import Trials

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TYPED = [line.split("  #")[0].strip() for line in re.findall(r"^    (roost .*)$", README, flags=re.MULTILINE)]
COMMANDS = [line for line in TYPED if "--on ray" not in line]  # those need Ray: tests/test_on_ray.py
SMALL = "--size 64x64 --frames 5 --steps 2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("readme")
    build_demo_model(directory / "model")
    flux_files(directory)
    emulated = shlex.split(f"--gpu emulated --vram 2GiB {SMALL}")
    assert run(["plan", f"{directory}/model", *emulated, "-o", f"{directory}/wan.yaml"]) == 0
    (directory / "prompts.txt").write_text("a red fox\n# a comment\na grey goose\n", encoding="utf-8")
    return directory


def test_the_readme_has_commands_to_try() -> None:
    assert len(COMMANDS) >= 7


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_readme_runs(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    words = shlex.split(command)[1:]
    here = dict.fromkeys(("./Wan2.2-T2V-A14B-Diffusers", "./FLUX.1-dev", "MODEL", "qwen-image"), "model")
    words = [here.get(word, word) for word in words]
    if words[0] == "plan" and not {"--gpu", "--fleet"} & {*words}:
        words += ["--gpu", "rtx-4090"]
    if words[0] == "plan" and "-o" in words:
        words[words.index("-o") + 1] = "planned.yaml"  # the emulated plan stays for `run`
    if words[0] == "bench":  # real trials are the demo's, and those of test_bench_command
        (folder / "planted.json").write_text("{}")
        stub = (sys.executable, str(STUB), str(folder / "planted.json"))
        monkeypatch.setattr(Trials.__init__, "__defaults__", (stub,))
        words += ["--rounds", "1"]
        if "--vram" in words:
            words[words.index("--vram") + 1] = "2GiB"
            words += ["--gpu", "emulated", *shlex.split(SMALL), "--strategies", "search"]
    # The demo has 8 blocks, which are cast as they load.
    for typed, small in {"resident_blocks=10": "resident_blocks=4", "pinned=20,mapped=10": "pinned=4,mapped=0"}.items():
        words = [word.replace(typed, small) for word in words]
    assert run(words) == 0


def test_the_screen_of_a_plan_with_files_is_what_docs_files_shows() -> None:
    screen = README.split("The plan, for a card with 8 GiB free:\n\n")[1].split("\n\n")[0]
    assert screen in (ROOT / "docs" / "files.md").read_text(encoding="utf-8")


EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
CALL = "num_inference_steps=2, height=64, width=64, num_frames=5).frames[0]"


def test_a_planned_pipeline_of_the_readme_runs(folder: Path) -> None:
    example = EXAMPLES[0].replace("./FLUX.1-dev", str(folder / "model"))
    example = example.replace(
        'gpu="rtx-4090", ram="64GiB"', 'gpu="emulated", vram="2GiB", size="64x64", frames=5, steps=2'
    )
    names: dict[str, object] = {}
    exec(example.replace("num_inference_steps=28).images[0]", CALL), names)
    names["pipeline"].roost.close()  # type: ignore[attr-defined]
    assert isinstance(names["plan"], type(roost.load_plan(folder / "wan.yaml")))


def test_an_attached_pipeline_of_the_readme_runs(folder: Path) -> None:
    from diffusers import WanPipeline

    names: dict[str, object] = {"roost": roost, "pipeline": WanPipeline.from_pretrained(folder / "model")}
    example = EXAMPLES[1].replace('size="1024x1024", steps=28', 'size="64x64", frames=5, steps=2')
    exec(example.replace("num_inference_steps=28).images[0]", CALL), names)
    assert len(names["image"]) == 5  # type: ignore[arg-type]


def test_the_demo_runs_and_leaves_a_video_and_a_plan(tmp_path: Path) -> None:
    copy = tmp_path / "clone"
    (copy / "scripts").mkdir(parents=True)
    for script in (ROOT / "scripts").glob("*.py"):
        (copy / "scripts" / script.name).write_bytes(script.read_bytes())
    demo = subprocess.run(
        [sys.executable, "scripts/demo.py"], cwd=copy, capture_output=True, text=True, timeout=1200, check=False
    )
    assert demo.returncode == 0, demo.stderr[-2000:]
    digests = re.findall(r"^digest (\w+)$", demo.stdout, flags=re.MULTILINE)
    assert len(digests) == 2
    assert digests[0] == digests[1]
    assert (copy / "demo" / "fox.mp4").stat().st_size > 0
    assert roost.load_plan(copy / "demo" / "plan.yaml").fits
    assert MeasuredStore(copy / "demo" / "home" / "data" / "roost" / "measured").entries()
    assert MeasuredStore().entries() == []
