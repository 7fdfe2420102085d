"""Stages are maximal runs of the same use; encoders that take turns within one are one record each."""

from roost.facts.model import Kind
from roost.facts.stage import StageKey
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
