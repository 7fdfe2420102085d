"""Stages are maximal runs of the same use; encoders that take turns within one are one record each."""

from typing import Any

import pytest

from roost.facts import stage
from roost.facts.machine import Lane
from roost.facts.model import Kind
from roost.facts.stage import StageKey, stage_of
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.engine.stages import StageEvent, StageRecorder

KINDS: dict[str, Kind] = {
    "text_encoder": "text_encoder", "text_encoder_2": "text_encoder", "transformer": "dit", "vae": "vae"
}  # fmt: skip


def recorded(*uses: StageKey) -> list[StageKey]:
    with EmulatedDevice(1) as device:
        recorder = StageRecorder(device, None, KINDS)
        for stage in uses:
            recorder.begin(stage)
        recorder.finish()
    return [StageKey(each.component, each.phase) for each in recorder.records]


class LateDevice(EmulatedDevice):
    """Gets to its marks, a second apart each, when the host waits for it or ``through`` says so."""

    def __init__(self) -> None:
        super().__init__(1)
        self.marks, self.through, self.waits = 0, 0, 0

    def mark(self, lane: Lane = "compute") -> Any:
        self.marks += 1
        return self.marks

    def reached(self, mark: Any) -> bool:
        return bool(mark <= self.through)

    def seconds_between(self, earlier: Any, later: Any) -> float:
        assert later <= self.through
        return float(later - earlier)

    def synchronize(self) -> None:
        self.waits += 1
        self.through = self.marks


def test_nothing_waits_before_the_end_and_times_are_the_device_s() -> None:
    unet, beside = StageKey("unet", "denoise"), StageKey("controlnet", "beside")
    events: list[StageEvent] = []
    with LateDevice() as device:
        recorder = StageRecorder(device, events.append, {"unet": "dit", "controlnet": "other"})
        for step in range(1, 5):
            recorder.begin(beside)
            recorder.begin(unet)
            recorder.step(step, 4)
        assert device.waits == 0
        assert {each.what for each in events} == {"begin", "step"}
        device.through = device.marks - 1
        recorder.begin(beside)  # now the first three steps turn out to be over
        told = [each for each in events if each.what == "took"]
        assert [(each.step, each.seconds) for each in told] == [(2, 3.0), (3, 3.0)]
        recorder.finish()
        recorder.finish()
        assert device.waits == 1
    assert recorder.step_seconds == (3.0, 3.0, 3.0)
    assert [each.seconds for each in recorder.records] == [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0]


def test_a_step_that_brings_a_component_in_is_not_told_of() -> None:
    events: list[StageEvent] = []
    with EmulatedDevice(1) as device:
        recorder = StageRecorder(device, events.append, KINDS)
        recorder.begin(StageKey("transformer", "denoise"))
        recorder.step(1, 4)
        recorder.step(2, 4)
        recorder.begin(StageKey("transformer_2", "denoise"))
        recorder.step(3, 4)
        recorder.step(4, 4)
        recorder.finish()
    assert [each.step for each in events if each.what == "took"] == [2, 4]
    assert len(recorder.step_seconds) == 3


def test_turns_within_a_stage_are_one_record_each() -> None:
    one, two = StageKey("text_encoder", "text_encode"), StageKey("text_encoder_2", "text_encode")
    assert recorded(one, two, one, two) == [one, two]


def test_the_same_stage_after_another_is_a_record_of_its_own() -> None:
    denoise, decode = StageKey("transformer", "denoise"), StageKey("vae", "decode")
    assert recorded(denoise, decode, denoise) == [denoise, decode, denoise]


def test_the_next_call_starts_over() -> None:
    with EmulatedDevice(1) as device:
        recorder = StageRecorder(device, None, KINDS)
        for stage in (StageKey("transformer", "denoise"), StageKey("vae", "decode")):
            recorder.begin(stage)
            recorder.finish()
    assert [each.name for each in recorder.records] == ["decode"]


def test_stages_of_one_name_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_TEXTS", dict.fromkeys(stage._TEXTS, "work"))
    denoise, decode = StageKey("transformer", "denoise"), StageKey("vae", "decode")
    encode = StageKey("vae", "image_encode")
    assert recorded(encode, denoise, decode, denoise) == [encode, denoise, decode, denoise]
    assert stage_of("vae", "vae", "encode") == encode
    assert stage_of("vae", "vae", "decode") == decode


@pytest.mark.parametrize(
    ("key", "kinds", "plan", "run"),
    [
        (StageKey("transformer", "denoise"), {"transformer": "dit"}, "denoise (transformer)", "denoise"),
        (
            StageKey("transformer_2", "denoise"),
            {"transformer": "dit", "transformer_2": "dit"},
            "denoise (transformer_2)",
            "denoise (low noise)",
        ),
        (StageKey("vae", "image_encode"), {"vae": "vae"}, "image encode (vae)", "encode image"),
        (StageKey("clip", "image_encode"), {"clip": "image_encoder"}, "image encode (clip)", "image encode"),
        (StageKey("controlnet", "beside"), {"controlnet": "other"}, "denoise (controlnet)", "controlnet"),
        (StageKey("safety_checker", "check"), {"safety_checker": "other"}, "check (safety_checker)", "safety_checker"),
    ],
)
def test_plans_and_runs_call_a_stage_what_they_always_called_it(
    key: StageKey, kinds: dict[str, Kind], plan: str, run: str
) -> None:
    assert stage.stage_text(key.phase, key.component) == plan
    assert stage.stage_text(key.phase, key.component, kinds=kinds, named=False) == run
