"""One trial, measured in this process: the same picture under a plan and under diffusers alone, and what each took."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import roost
from roost.errors import OutOfMemory
from roost.pipelines.calls import GenerationRequest
from roost.plan import PlanDocument
from roost.residency.run.plain import move_whole
from roost.residency.run.trial import TrialSetup, open_trial
from roost.tune.trials.peers import peer_named
from tiny_models import build, default_call

FAMILY = "wan2.2"
CALL = {**default_call(FAMILY), "num_inference_steps": 4}
MIB = 1024**2


def request(**changed: Any) -> GenerationRequest:
    call = {**CALL, **changed}
    return GenerationRequest(prompt=call.pop("prompt"), more=call)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(FAMILY, tmp_path_factory.mktemp("trial") / "model")


def plan_of(model: Path, strategy: str) -> PlanDocument:
    return roost.make_plan(
        model, gpu="emulated", vram="64MiB", headroom="0", policy="rules", set=f"all={strategy}", steps=4
    )


def setup_of(model: Path, strategy: str, **changed: Any) -> TrialSetup:
    plan = plan_of(model, strategy)
    return TrialSetup(
        **{"plan": plan, "model_dir": model, "device_kind": "emulated", "budget_bytes": 64 * MIB, **changed}
    )


def test_diffusers_alone_gives_the_bits_of_every_strategy_and_the_figures_say_what_moved(model: Path) -> None:
    with open_trial(setup_of(model, "resident", place=move_whole)) as trial:
        trial.warm_up(request(num_inference_steps=2))
        plain = trial.measure(request())
    assert [each.name for each in plain.stages] == [
        "text encode", "denoise (high noise)", "denoise (low noise)", "decode"
    ]  # fmt: skip
    assert len(plain.step_seconds) == 3
    assert (plain.bytes_copied, plain.pinned_bytes, plain.stall_s) == (None, None, None)
    with open_trial(setup_of(model, "resident")) as trial:
        trial.warm_up(request(num_inference_steps=2))
        resident = trial.measure(request())
    assert resident.digest == plain.digest
    assert resident.bytes_copied == 0
    with open_trial(setup_of(model, "layerwise-offload")) as trial:
        trial.warm_up(request(num_inference_steps=2))
        streamed = trial.measure(request())
        again = trial.measure(request())
    assert streamed.digest == again.digest == plain.digest
    assert streamed.bytes_copied >= again.bytes_copied > 0
    assert streamed.peak_bytes < resident.peak_bytes <= plain.peak_bytes * 1.05


def test_the_peak_is_what_the_plan_predicted_although_later_generations_keep_more(model: Path) -> None:
    plan = roost.make_plan(
        model, gpu="emulated", vram="64MiB", headroom="0", set="all=snapshot-offload", size=(32, 32), frames=5, steps=4
    )
    assert plan.predicted is not None
    with open_trial(replace(setup_of(model, "resident"), plan=plan)) as trial:
        trial.warm_up(request(num_inference_steps=2, width=32, height=32, num_frames=5))
        figures = trial.measure(request(width=32, height=32, num_frames=5))
    assert figures.peak_bytes == pytest.approx(plan.predicted.peak_bytes.mid, rel=0.05)


def test_a_plain_pipeline_larger_than_the_budget_is_out_of_memory_and_unbound_it_runs(model: Path) -> None:
    with (
        pytest.raises(OutOfMemory, match="placing the pipeline"),
        open_trial(setup_of(model, "resident", place=move_whole, budget_bytes=1 * MIB)),
    ):
        pytest.fail("it must not load")
    with open_trial(setup_of(model, "resident", place=move_whole, budget_bytes=None)) as trial:
        assert trial.measure(request()).digest


def test_what_memory_did_not_allow_is_in_the_figures(model: Path) -> None:
    with open_trial(setup_of(model, "resident")) as trial:
        trial.warm_up(request(num_inference_steps=2))
        enough = trial.measure(request())
    assert enough.demotions == {}
    with open_trial(setup_of(model, "resident", budget_bytes=enough.peak_bytes - 1024)) as trial:
        trial.warm_up(request(num_inference_steps=2))
        short = trial.measure(request())
    assert short.demotions
    assert short.digest == enough.digest


@pytest.mark.parametrize("peer", ["diffusers model offload", "diffusers group offload leaf"])
def test_every_generation_of_a_peer_is_timed_by_stage(model: Path, peer: str) -> None:
    with open_trial(setup_of(model, "resident", place=peer_named(peer).place)) as trial:
        first, second = trial.measure(request()), trial.measure(request())
    assert [each.name for each in first.stages] == [each.name for each in second.stages]
    assert len(second.stages) == 4
    assert first.digest == second.digest
