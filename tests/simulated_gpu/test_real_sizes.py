"""Denoisers of their real size, half of their blocks streamed: what fits, and what a steady pass costs the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("real_sizes.py")
# Billions of parameters, from each model's card, and the streamed blocks of a steady pass at half.
MODELS = {"flux": (11.9, 29), "qwen-image": (20.4, 30), "wan2.2": (14.3, 20), "sdxl": (2.57, 16)}


def passes(model: str) -> dict[str, Any]:
    variables = {**os.environ, "SIM_NO_COPY": "1", "SIM_TOTAL_MIB": "40960", "SIM_CC": "90"}
    command = [sys.executable, str(SCRIPT), model, "0.5"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("model", MODELS)
def test_a_steady_pass_copies_the_streamed_blocks_and_costs_the_host_two_events_each(model: str) -> None:
    billions, streamed = MODELS[model]
    found = passes(model)
    first, steady = found["first"], found["steady"]
    assert found["weights_bytes"] == pytest.approx(billions * 2e9, rel=0.01)
    assert first["h2d_bytes"] > found["weights_bytes"]  # and the second pass's first blocks
    assert found["reserved_bytes"] < found["weights_bytes"]
    assert steady["h2d_copies"] == streamed
    assert steady["records"] == steady["waits"] == 2 * streamed
    assert found["by_roost"] == found["violations"] == []
    assert {"syncs", "mallocs", "frees", "pageable_copies", "registrations"}.isdisjoint(steady)
