"""The last rung for a decode that runs out of memory: the same decode in tiles, where other bits are allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from edited_plans import edited
from live_pipelines import bare_digest, held_by, own_pipeline, request_for
from out_of_memory import failing_forwards
from plans import plan_for
from roost.api.plans.update import update_plan
from roost.errors import OutOfMemory
from roost.plan import plan_to_yaml, read_plan
from roost.plan.revision import revised
from roost.residency.hold.attach import Held
from roost.residency.run.generate import generate
from roost.residency.run.trial import Trial


def _held(*, may_tile: bool) -> Held:
    pipeline = own_pipeline("sdxl")
    plan = plan_for(pipeline, "snapshot-offload")
    vae = revised(plan.components["vae"], may_tile=may_tile)
    return held_by(pipeline, revised(plan, components={**plan.components, "vae": vae}))


@contextmanager
def _too_large_untiled(vae: Any) -> Iterator[None]:
    """Decodes run out of memory unless they are tiled."""

    def before(*_: object) -> None:
        if not vae.use_tiling:
            raise torch.OutOfMemoryError("planted. Tried to allocate 20.00 MiB.")

    handle = vae.decoder.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def test_a_decode_that_nothing_else_makes_fit_runs_tiled_and_the_plan_s_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    with _held(may_tile=True) as held, _too_large_untiled(held.pipeline.vae):
        path.write_text(plan_to_yaml(held.plan))
        tiled = generate(held, request_for("sdxl")).digest
        assert held.changes[-1].startswith("decode of vae ran tiled: its bits are not those of an untiled one")
        assert "vae: its blocks stream" in held.changes[-3]
        vae = held.pipeline.vae
        assert (vae.use_tiling, held.demotions["vae"]) == (True, {"tiling": True})
        update_plan(path, held.demotions)
    assert not vae.use_tiling
    again = read_plan(path)
    assert (again.components["vae"].tiling, again.components["vae"].decided_by) == (True, "run:out-of-memory")
    with held_by(own_pipeline("sdxl"), again) as held:
        assert generate(held, request_for("sdxl")).digest == tiled
        assert held.changes == []


@pytest.mark.parametrize("why", ["the plan forbids it", "a trial's bits are compared"])
def test_what_may_not_change_bits_is_out_of_memory(why: str) -> None:
    trial = why.startswith("a trial")
    with _held(may_tile=trial) as held, _too_large_untiled(held.pipeline.vae):
        if trial:
            Trial(held, held.device, 0.0)
        with pytest.raises(OutOfMemory, match="nothing is left to give up"):
            generate(held, request_for("sdxl"))
        assert not held.pipeline.vae.use_tiling


@pytest.mark.parametrize("allowed", [["tiling"], []])
def test_a_plan_from_before_may_tile_was_written_may_what_its_person_allowed(
    allowed: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(plan_to_yaml(plan_for(own_pipeline("sdxl"))))

    def age(plan: Any) -> None:
        plan["policy"]["allow"] = allowed
        for each in plan["components"].values():
            del each["may_tile"]

    old = read_plan(edited(path, path, age))
    assert [name for name, each in old.components.items() if each.may_tile] == (["vae"] if allowed else [])


def test_residency_is_given_up_before_bits_are() -> None:
    with _held(may_tile=True) as held, failing_forwards([held.pipeline.vae.decoder], 1):
        assert generate(held, request_for("sdxl")).digest == bare_digest("sdxl")
        assert held.changes
        assert "tiling" not in held.demotions.get("vae", {})
