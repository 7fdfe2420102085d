"""Errors name an option as whoever asked would type it: a keyword argument in Python, a flag at a shell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import roost
from roost.cli.app import run
from roost.errors import RoostError, UsageError
from roost.option_spelling import at_a_shell, given, option

CARD = {"gpu": "rtx-4090", "ram": "96GiB"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no size": ({"vram": "12"}, "vram='12' would be 12 bytes"),
    "no memory": ({"vram": 0}, "vram=0 leaves nothing"),
    "no card": ({"gpu": "riva"}, "gpu='riva' is not a known card"),
    "no budget of an emulated card": ({"gpu": "emulated"}, "gpu='emulated' needs its memory too; add it, like vram='"),
    "no word": ({"mode": "fast"}, "mode='fast' is not known"),
    "no picture": ({"size": "12"}, "size='12' is not a picture size"),
    "no count": ({"num_gpus": 0}, "num_gpus=0 is out of range"),
    "no factor": ({"max_slowdown": 0.5}, "max_slowdown=0.5 is out of range"),
    "no strategy": ({"set": "vae=fast"}, "set='vae=fast': write SELECTOR=STRATEGY"),
    "no component": ({"set": "vea=resident"}, "set='vea=resident': no component or group is called 'vea'"),
    "no group": ({"layerwise_offload_components": "vea"}, "layerwise_offload_components='vea': no component"),
    "no role": ({"role": "painter"}, "role='painter' is not a role"),
    "two words": ({"allow": "tiling", "forbid": "tiling"}, "allow='tiling' and forbid='tiling' disagree"),
    "two wishes": (
        {"set": ["vae=resident", "vae=component-offload"]},
        "set='vae=resident' and set='vae=component-offload' disagree",
    ),
    "two managers": (
        {"fsdp": True, "num_gpus": 2, "dit_layerwise_offload": True},
        "fsdp=True and dit_layerwise_offload=True both manage",
    ),
    "an emulated card of no size": ({"strength": 0.5}, "strength=0.5: WanPipeline runs all its steps"),
}


@pytest.mark.dealt(3)
@pytest.mark.parametrize("name", WRONG)
def test_python_is_told_its_own_arguments(name: str) -> None:
    options, said = WRONG[name]
    with pytest.raises(UsageError) as caught:
        roost.make_plan("wan2.2-t2v-a14b", **{**CARD, **options})
    assert str(caught.value).startswith(said)
    assert "--" not in str(caught.value)


def test_a_shell_is_told_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--vram", "12"], "--vram '12' would be 12 bytes"),
        (["--set", "vae=fast"], "--set vae=fast: write"),
        (["--fsdp", "--num-gpus", "2", "--dit-layerwise-offload"], "--fsdp and --dit-layerwise-offload both manage"),
    ):
        assert run(["plan", "wan2.2-t2v-a14b", "--gpu", "rtx-4090", "--ram", "96GiB", *words]) == 2
        assert capsys.readouterr().err.startswith(f"error: {said}")


def test_a_command_does_not_change_how_python_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "wan2.2-t2v-a14b", "--gpu", "riva"]) == 2
    with pytest.raises(UsageError, match=r"^gpu='riva' is not"):
        roost.make_plan("wan2.2-t2v-a14b", gpu="riva")


def test_loading_a_plan_names_arguments_too(tmp_path: Path) -> None:
    plan = roost.make_plan("flux.1-dev", policy="rules", **CARD)
    for model, said in (
        (None, "say where the model is with model='DIR'"),
        ("flux.1-dev", "model='flux.1-dev' is only"),
    ):
        with pytest.raises(RoostError, match=said) as caught:
            roost.load_pipeline(plan, model=model)
        assert "--" not in str(caught.value)


def test_what_switches_and_what_has_values_is_spelled_for_each_side() -> None:
    for name, value, python, shell in (
        ("vram", None, "vram=", "--vram"),
        ("pinned_max", "2GiB", "pinned_max='2GiB'", "--pinned-max 2GiB"),
        ("fsdp", False, "fsdp=False", "--no-fsdp"),
        ("force", True, "force=True", "--force"),
        ("strength", 0.30, "strength=0.3", "--strength 0.3"),
        ("max_seconds", 300.0, "max_seconds=300", "--max-seconds 300"),
    ):
        assert option(name, value) == python
        with at_a_shell():
            assert option(name, value) == shell
    with at_a_shell():
        assert given("gpu", "a b") == "--gpu 'a b'"
