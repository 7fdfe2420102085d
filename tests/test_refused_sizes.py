"""A size that the pipeline itself refuses is said where it is typed, not after the weights are loaded."""

from __future__ import annotations

from typing import NoReturn

import pytest

from dry_runs import tiny_directory, tiny_inventory, tiny_workload
from roost.api.models import traces
from roost.api.models.inspect import profile_of
from roost.cli.app import run
from roost.errors import RefusedCall, UsageError

EMULATED = ("--gpu", "emulated", "--vram", "1GiB", "--steps", "2")


@pytest.mark.parametrize("typed", [("--size", "65x64"), ("--sweep", "size=64x64,65x64")])
@pytest.mark.parametrize("family", ["sd3", "wan2.2"])
def test_a_size_that_the_pipeline_refuses_is_one_line(family: str, typed: tuple[str, str], capsys) -> None:
    frames = ("--frames", "9") if family == "wan2.2" else ()
    tiny_directory(family)
    capsys.readouterr()
    assert run(["plan", str(tiny_directory(family)), *EMULATED, *frames, *typed]) == 2
    said = capsys.readouterr().err.strip()
    assert "--size 65x64" in said
    assert "refuses it: `height` and `width` have to be divisible by 16" in said
    assert "\n" not in said


def test_a_pipeline_that_refuses_its_own_size_too_is_left_to_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise RefusedCall("WanPipeline", "no such thing")

    inventory = tiny_inventory("wan2.2")
    monkeypatch.setattr(traces, "trace_model", refuse)
    with pytest.raises(RefusedCall, match="no such thing") as error:
        traces.trace_asked(inventory, profile_of(inventory), tiny_workload("wan2.2", width=65))
    assert not isinstance(error.value, UsageError)
