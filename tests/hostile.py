"""A model folder full of files that want to be run, and every command of the CLI in it, watched."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import roost
from small_model import edit_json

WATCH = Path(__file__).parent / "watch"
SOURCE = Path(roost.__file__).parents[1]

SHADOWS = (
    *("roost", "torch", "typing", "sitecustomize", "usercustomize", "yaml", "json", "conftest", "numpy", "psutil"),
    *("pynvml", "safetensors", "huggingface_hub", "tokenizers", "typer", "pydantic", "asyncio", "modeling_evil"),
)
PACKAGES = ("diffusers", "transformers", "PIL", "rich", "accelerate", "imageio_ffmpeg", "kernels")

# Each command as a person would type it; what it printed and its exit code go to files, in order.
_DRIVER = """
import json, os, sys
commands, folder = json.loads(sys.argv[1]), sys.argv[2]
from roost.cli import main
codes = []
for number, words in enumerate(commands):
    printed = os.open(f"{folder}/{number}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(printed, 1), os.dup2(printed, 2), os.close(printed)
    sys.argv = ["roost", *words]
    try:
        main()
    except SystemExit as end:
        codes.append(end.code)
json.dump(codes, open(f"{folder}/codes.json", "w"))
"""


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.mark),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What every command printed and ended with, by its words, and what was seen meanwhile, by kind."""

    codes: Mapping[tuple[str, ...], int]
    printed: Mapping[tuple[str, ...], str]
    events: tuple[Mapping[str, str], ...]

    def of(self, kind: str) -> frozenset[str]:
        return frozenset(each["what"] for each in self.events if each["kind"] == kind)

    @property
    def pids(self) -> frozenset[str]:
        return frozenset(each["pid"] for each in self.events)


def set_traps(model: Path, marks: Path) -> None:
    """Modules that shadow others, code that configs offer, pickles beside weights: each leaves a mark when used."""
    for name in (*SHADOWS, *(f"{each}/__init__" for each in PACKAGES), "text_encoder/custom_generate/generate"):
        path = model / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"import os\nos.makedirs({str(marks / name.replace('/', '.'))!r}, exist_ok=True)\n")
    for folder in ("tokenizer", "text_encoder", "vae"):
        (model / folder / "modeling_evil.py").write_text((model / "modeling_evil.py").read_text())
    edit_json(model / "tokenizer" / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["modeling_evil.T", None]}})
    for name in ("text_encoder/pytorch_model.bin", "vae/diffusion_pytorch_model.bin", "text_encoder/.metadata"):
        (model / name).write_bytes(pickle.dumps(Trap(marks / name.replace("/", "."))))


def watch(commands: Sequence[Sequence[str]], model: Path, work: Path) -> Watched:
    """Runs the commands in one process whose working directory is ``model``, and watches it and its children."""
    log, printed = work / "watch.jsonl", work / "printed"
    printed.mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    kept |= {"PYTHONPATH": os.pathsep.join((str(WATCH), str(SOURCE))), "PYTHONDONTWRITEBYTECODE": "1"}
    kept |= {"PYTHONSTARTUP": "roost.py", "ROOST_WATCH": str(log), "ROOST_WATCH_FOLDER": str(model)}
    driver = (sys.executable, "-P", "-c", _DRIVER, json.dumps(commands), str(printed))
    answers = "y\n" * 100  # to a library that asks whether it may
    ended = subprocess.run(
        driver, cwd=model, env=kept, input=answers, text=True, capture_output=True, timeout=900, check=False
    )
    assert ended.returncode == 0, ended.stderr
    codes = json.loads((printed / "codes.json").read_text())
    lines = [json.loads(each) for each in log.read_text().splitlines()]
    words = [tuple(each) for each in commands]
    return Watched(
        codes=dict(zip(words, codes, strict=True)),
        printed={each: (printed / f"{number}.txt").read_text() for number, each in enumerate(words)},
        events=tuple(lines),
    )
