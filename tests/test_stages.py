"""Stages are maximal runs of the same use; encoders that take turns within one are one record each."""

import pytest

from roost.facts import stage
from roost.facts.model import Kind
from roost.facts.stage import StageKey, stage_of
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.engine.stages import StageRecorder

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
