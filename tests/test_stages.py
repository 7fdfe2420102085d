"""Stages are maximal runs of the same use; encoders that take turns within one are one record each."""

from roost.residency.device.emulated import EmulatedDevice
from roost.residency.engine.stages import StageRecorder


def recorded(*uses: tuple[str, str]) -> list[tuple[str, str]]:
    with EmulatedDevice(1) as device:
        recorder = StageRecorder(device, None)
        for stage, component in uses:
            recorder.begin(stage, component)
        recorder.finish()
    return [(each.name, each.component) for each in recorder.records]


def test_turns_within_a_stage_are_one_record_each() -> None:
    one, two = ("text encode", "text_encoder"), ("text encode", "text_encoder_2")
    assert recorded(one, two, one, two) == [one, two]


def test_the_same_stage_after_another_is_a_record_of_its_own() -> None:
    denoise, decode = ("denoise", "transformer"), ("decode", "vae")
    assert recorded(denoise, decode, denoise) == [denoise, decode, denoise]


def test_the_next_call_starts_over() -> None:
    with EmulatedDevice(1) as device:
        recorder = StageRecorder(device, None)
        for stage in ("denoise", "decode"):
            recorder.begin(stage, "vae")
            recorder.finish()
    assert [each.name for each in recorder.records] == ["decode"]
