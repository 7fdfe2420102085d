"""A plan that won trials says what they measured, on the screen and in its file."""

from __future__ import annotations

import pytest

from live_pipelines import live_pipeline
from plans import plan_for
from roost.api.plans.update import update_plan
from roost.cli.views.plan_details import show_plan_details
from roost.errors import InvalidFile
from roost.plan import PlanDocument, plan_to_yaml, read_plan
from roost.plan.trials import Measured, Rival, StepTimes

MEASURED = Measured(
    source="trial",
    device_kind="emulated",
    when="2026-01-02T03:04:05Z",
    rounds=3,
    trial_steps=5,
    step_s=StepTimes(mean=0.5125, sd=0.0042, n=12),
    load_s=21.5,
    total_s=14.3,
    peak_bytes=3 * 1024**3,
    reserved_bytes=None,
    host_peak_bytes=None,
    digest="0" * 64,
    candidate="layerwise k=2 strided p1",
    rivals=[
        Rival(name="rule plan", status="eliminated", reason="slower", ratio=1.31, ratio_error=0.04),
        Rival(name="resident", status="oom", reason="too large", ratio=None, ratio_error=None),
    ],
)


def measured_plan() -> PlanDocument:
    return plan_for(live_pipeline("flux"), "layerwise-offload").model_copy(update={"measured": MEASURED})


def test_what_was_measured_survives_the_file(tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(plan_to_yaml(measured_plan()))
    assert read_plan(path).measured == MEASURED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2026-01-02T03:04:05Z", "yesterday"),
        ("rounds: 3", "rounds: 0"),
        ("mean: 0.5125", "mean: -1.0"),
        ("status: oom", "status: fine"),
        ("trial_steps: 5", "trial_steps: 5\n  more: 1"),
    ],
)
def test_a_measurement_that_can_not_be_is_no_plan(tmp_path, old, new) -> None:
    path = tmp_path / "plan.yaml"
    text = plan_to_yaml(measured_plan())
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InvalidFile, match="measured"):
        read_plan(path)


def test_the_screen_says_what_was_measured_and_on_what(capsys) -> None:
    show_plan_details(measured_plan())
    unfolded = capsys.readouterr().out.replace("\n  ", " ")  # long lines go on below, indented
    lines = [" ".join(line.split()) for line in unfolded.splitlines() if line.startswith("measured")]
    assert lines == [
        "measured a step 512.5 ms ± 4.2 ms, a generation 14.3 s, peak 3.00 GiB",
        "measured in 3 rounds of 5 steps on the emulated device, not a GPU, 2026-01-02T03:04:05Z",
        "measured rule plan: 1.31 ± 0.04 × the time",
        "measured resident: oom: too large",
    ]


def test_a_plan_that_had_to_be_lowered_is_no_longer_the_measured_one(tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(plan_to_yaml(measured_plan()))
    update_plan(path, {"transformer": {"resident_blocks": 0}})
    assert read_plan(path).measured is None
