"""Roost's commands from end to end on the simulated GPU: how they end, and nothing out of order in any process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_models import build

SIZE = ("--size", "64x64", "--frames", "9", "--steps", "2")
Run = Callable[..., str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build("wan2.2", tmp_path_factory.mktemp("model") / "wan", torch.bfloat16))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs Python with these words and returns what it said; every process that ends by itself has reported."""

    def running(*words: str, **variables: str) -> str:
        report = tmp_path / "report"
        environment = {**os.environ, "SIM_VALUES": "1", "SIM_REPORT": str(report), **variables}
        command = [sys.executable, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        lines: list[dict[str, Any]] = [json.loads(line) for line in report.read_text().splitlines()]
        assert [each["violations"] for each in lines if each["violations"]] == []
        return done.stdout + done.stderr

    return running


def test_plan_reads_the_card_by_its_management_library(run: Run, model: str) -> None:
    said = run("-m", "roost", "plan", model, *SIZE, SIM_TOTAL_MIB="8192", SIM_NAME="NVIDIA GeForce RTX 4060")
    assert "NVIDIA GeForce RTX 4060" in said


@pytest.mark.parametrize("vram", [(), ("--vram", "505MiB", "--headroom", "0")], ids=["all", "little"])
def test_run_makes_a_video(run: Run, model: str, tmp_path: Path, vram: tuple[str, ...]) -> None:
    video = tmp_path / "fox.mp4"
    said = run("-m", "roost", "run", model, "--prompt", "a fox", *SIZE, *vram, "-o", str(video))
    assert video.stat().st_size > 0
    assert "digest" in said


def test_plan_with_trials_finds_equal_bits_in_all_of_them(run: Run, model: str) -> None:
    said = run("-m", "roost", "plan", model, *SIZE, "--tune")
    assert "best:" in said
    assert "wrong" not in said
    assert "crashed" not in said


def test_bench_finds_equal_bits_in_all_candidates(run: Run, model: str) -> None:
    said = run("-m", "roost", "bench", model, *SIZE)
    assert "crashed" not in said
    assert "wrong" not in said


def test_probe_times_every_rate(run: Run) -> None:
    said = run("-m", "roost", "probe", "--json", SIM_VALUES="")
    found = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert found["missing"] == {}


ATTACH = """
import roost, sys
from diffusers import DiffusionPipeline
import torch
pipeline = DiffusionPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.bfloat16)
with roost.attach(pipeline, size="64x64", frames=9, steps=2):
    for _ in range(2):
        made = pipeline("a fox", width=64, height=64, num_frames=9, num_inference_steps=2, output_type="pt")
print("made", tuple(made.frames.shape))
"""


def test_attach_holds_a_live_pipeline(run: Run, model: str) -> None:
    assert "made (1, 9, 3, 64, 64)" in run("-c", ATTACH, model)
