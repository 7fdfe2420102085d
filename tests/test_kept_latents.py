"""What enters the decode is on the disk before it begins, and a failed run goes on from there with the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from roost.cli.app import run
from tiny_models import build

EMULATED = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0", "--policy", "rules")
SMALL = ("--size", "64x64", "--steps", "2")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    build("sdxl", folder / "model")
    assert run(["plan", str(folder / "model"), *EMULATED, *SMALL, "-o", str(folder / "plan.yaml")]) == 0
    return folder / "plan.yaml"


def _record(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["run", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@contextmanager
def _failing(kind: type, method: str, error: Callable[[], BaseException], calls: int = 1) -> Iterator[None]:
    """From the ``calls``-th on, calls of a class's method fail before they begin."""
    original, count = getattr(kind, method), [0]

    def fails(self: Any, *args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] >= calls:
            raise error()
        return original(self, *args, **kwargs)

    setattr(kind, method, fails)
    try:
        yield
    finally:
        setattr(kind, method, original)


@pytest.mark.parametrize(
    ("error", "code"),
    [(torch.OutOfMemoryError, 5), (KeyboardInterrupt, 130), (LookupError, 1)],
)
def test_a_failure_in_the_decode_costs_no_step(error, code, plan, tmp_path, capsys) -> None:
    whole = _record(capsys, plan, "--prompt", "a fox")
    words = [str(plan), "--prompt", "a fox", "-o", str(tmp_path / "fox.png")]
    kept = tmp_path / "fox.png.latents.safetensors"
    with _failing(AutoencoderKL, "decode", error):
        assert run(["run", *words]) == code
    print(capsys.readouterr().err)
    assert kept.exists()
    again = _record(capsys, *words)
    assert again["digest"] == whole["digest"]
    assert again["resumed_from"] == {"output": str(tmp_path / "fox.png"), "stage": "decode", "step": 2}
