"""What a bench and its trials' processes say to each other arrives as it was said, and nothing else is taken for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import roost
from roost.plan.results import StageTime, TrialResult
from roost.tune.results.figures import completed
from roost.tune.trials.messages import (
    Beat,
    Failed,
    Loaded,
    Message,
    Phase,
    StepTook,
    Timed,
    TrialRequest,
    decode,
    decode_request,
    encode,
    encode_request,
)

RESULT = TrialResult(
    status="ok",
    step_seconds=(0.1, 0.2, 0.1),
    generation_s=2.0,
    stages=(StageTime(name="decode", component="vae", seconds=0.5, peak_bytes=1),),
    digest="a",
)


def test_a_request_arrives_as_it_was() -> None:
    request = TrialRequest(
        plan=roost.make_plan("flux.1-dev", gpu="rtx-4090", ram="64GiB", policy="rules"),
        peer="plain diffusers",
        model_dir=Path("/models/a b"),
        device_kind="cuda",
        budget_bytes=None,
        host_bytes=7,
        link_bytes_per_s=2e9,
        random_weights=True,
        call={"prompt": "é", "steps": 5, "strength": None},
        warm_up_steps=2,
    )
    assert decode_request(encode_request(request)) == request


@pytest.mark.parametrize(
    "message",
    [
        Beat(),
        Phase(phase="loading é\n"),
        StepTook(seconds=0.25),
        Loaded(load_s=1.5),
        Timed(result=replace(RESULT, demotions={"transformer": {"resident_blocks": 1}})),
        Failed(status="oom", reason="no memory"),
    ],
)
def test_a_message_is_one_line_and_arrives_as_it_was(message: Message) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == message


def test_steps_that_were_left_out_count_at_the_median() -> None:
    assert completed(RESULT, 10, 4).total_s == pytest.approx(2.0 + 6 * 0.1)


def test_figures_without_a_generation_are_no_result() -> None:
    assert completed(replace(RESULT, generation_s=None), 10, 4).status == "crashed"
