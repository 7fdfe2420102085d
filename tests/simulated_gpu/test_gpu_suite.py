"""A dry pass of benchmarks/gpu: each of its scripts runs to its end where PyTorch finds a CUDA device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu" / "suite.py"
# Kernels do nothing and copies move no bytes where sizes are real; where values steer what is called, both are true.
REAL_SIZES = ("smoke", "rates", "engine")
TRUE_VALUES = ("small-residency", "small-peers", "small-sglang", "small-generations", "small-load", "small-encoders")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu-simulated")


def run(results: Path, *items: str, **variables: str) -> str:
    command = [sys.executable, str(SUITE), "--device", "simulated", "--results", str(results), "--minutes", "60"]
    environment = {**os.environ, "SIM_TOTAL_MIB": "81920", **variables}
    done = subprocess.run([*command, "--only", *items], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("item", REAL_SIZES)
def test_an_item_of_real_size_runs_to_its_end(item: str, results: Path) -> None:
    run(results, item, SIM_NO_COPY="1")
    record = json.loads((results / f"{item}.json").read_text())
    assert not record.get("failed")


@pytest.mark.parametrize("item", TRUE_VALUES)
def test_an_item_on_a_small_model_runs_to_its_end_and_says_what_it_found(item: str, results: Path) -> None:
    run(results, "model")
    said = run(results, item, SIM_VALUES="1")
    assert "exit code" not in said
    assert (results / f"{item}.json").exists()
