"""Each strategy holds and copies the bytes that it should, within its budget."""

from typing import Any

import pytest
import torch

from live_pipelines import bare_digest, held_by, live_pipeline, own_pipeline, request_for, state_of, weights_bytes
from plans import GIB, LAYERWISE, plan_for
from roost.errors import OutOfMemory
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import hold
from roost.residency.hold.live_modules import held_modules
from roost.residency.run.generate import generate


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_streamed_stage_peaks_at_what_stays_and_its_two_slots(share: float) -> None:
    pipeline = live_pipeline("flux")
    transformer = pipeline.transformer
    plan = plan_for(pipeline, {**LAYERWISE, "resident_blocks": share})
    blocks = [f"single_transformer_blocks.{i}." for i in range(4)] + [f"transformer_blocks.{i}." for i in range(3)]
    sizes = [weights_bytes(transformer, block) for block in blocks]
    staying = [sizes[index] for index in ((2, 4, 6) if share else ())]  # 3 of 7, as evenly spread as they go
    streamed = [size for index, size in enumerate(sizes) if not share or index not in (2, 4, 6)]
    with held_by(pipeline, plan) as held:
        stages = {stage.component: stage for stage in generate(held, request_for("flux")).stages}
    trunk = weights_bytes(transformer) - sum(sizes)
    assert stages["transformer"].peak_bytes == trunk + sum(staying) + 2 * max(streamed)


def test_a_budget_of_exactly_the_peak_is_enough() -> None:
    pipeline = live_pipeline("ltx")
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        peak = generate(held, request_for("ltx")).peak_bytes
    with held_by(pipeline, plan_for(pipeline, LAYERWISE, budget_bytes=peak)) as held:
        assert generate(held, request_for("ltx")).digest == bare_digest("ltx")


def test_tied_weights_are_uploaded_once() -> None:
    pipeline = live_pipeline("wan2.2")
    encoder = pipeline.text_encoder
    assert encoder.shared.weight is encoder.encoder.embed_tokens.weight
    with held_by(pipeline, plan_for(pipeline, "snapshot-offload")) as held:
        peaks = {stage.component: stage.peak_bytes for stage in generate(held, request_for("wan2.2")).stages}
    assert peaks["text_encoder"] == weights_bytes(encoder)


def copied_bytes(strategy: Any, budget_bytes: int = GIB) -> tuple[int, int]:
    """Bytes up and down during one generation of Wan, after the first."""
    pipeline = live_pipeline("wan2.1")
    with held_by(pipeline, plan_for(pipeline, strategy, budget_bytes=budget_bytes)) as held:
        generate(held, request_for("wan2.1"))
        up, down = held.transfers.uploaded_bytes, held.transfers.downloaded_bytes
        generate(held, request_for("wan2.1"))
        return held.transfers.uploaded_bytes - up, held.transfers.downloaded_bytes - down


def test_component_offload_copies_back_what_it_copied_in_and_snapshot_offload_copies_nothing_back() -> None:
    one = max(
        weights_bytes(each) for each in held_modules(live_pipeline("wan2.1")).values()
    )  # room for the largest component alone
    component, snapshot = copied_bytes("component-offload", one), copied_bytes("snapshot-offload", one)
    assert component[0] == component[1] == snapshot[0] > 0
    assert snapshot[1] == 0


def test_resident_weights_are_not_copied_again_and_layerwise_ones_every_pass() -> None:
    assert copied_bytes("resident") == (0, 0)
    one = weights_bytes(live_pipeline("ltx").vae)
    passes, held = copied_bytes(LAYERWISE, one), copied_bytes({**LAYERWISE, "hold": True}, one)
    assert passes[0] > held[0] > 0
    assert passes[1] == held[1] == 0


def test_a_resident_component_drops_its_host_copy_and_gets_it_back() -> None:
    pipeline = live_pipeline("ltx")
    weight = pipeline.transformer.proj_in.weight
    host = weight.data_ptr()
    with held_by(pipeline, plan_for(pipeline)):
        assert weight.data_ptr() != host
        assert not pipeline.transformer.proj_in._forward_pre_hooks
    assert weight.device.type == "cpu"


def test_a_budget_overrun_names_stage_component_and_budget_and_the_device_is_empty_after_it() -> None:
    pipeline = own_pipeline("flux")
    blocks = pipeline.transformer.transformer_blocks
    plan = plan_for(pipeline, "component-offload", budget_bytes=weights_bytes(pipeline.transformer) - 1)
    with held_by(pipeline, plan) as held:
        blocks[0].borrowed = [blocks[1].attn.to_q.weight]  # so that it can't be streamed instead
        for _ in range(2):
            with pytest.raises(OutOfMemory, match=r"^denoise \(transformer\): .*emulated.*budget") as caught:
                generate(held, request_for("flux"))
            assert "\n" not in str(caught.value)
        assert held.device.used_bytes == 0


def test_a_component_over_the_budget_streams_its_blocks_instead() -> None:
    pipeline = live_pipeline("flux")
    plan = plan_for(pipeline, "component-offload", budget_bytes=weights_bytes(pipeline.transformer) - 1)
    with held_by(pipeline, plan) as held:
        assert generate(held, request_for("flux")).digest == bare_digest("flux")
        assert [each.partition(",")[0] for each in held.changes] == ["transformer: its blocks stream through 2 slots"]


def test_residents_that_no_budget_would_hold_are_refused_and_the_pipeline_is_as_before() -> None:
    pipeline = live_pipeline("flux")
    before = state_of(pipeline)
    device = EmulatedDevice(1024)
    with pytest.raises(OutOfMemory, match="placing"):
        hold(pipeline, plan_for(pipeline), device)
    assert state_of(pipeline) == before
    assert device.used_bytes == 0


def used_after_denoise(budget_bytes: int) -> tuple[bool, str]:
    """Whether a lingering transformer is still on the device when the VAE has decoded, and the picture's digest."""
    pipeline = live_pipeline("ltx")
    vae_bytes = weights_bytes(pipeline.vae)
    plan = plan_for(
        pipeline, "snapshot-offload", components={"transformer": {"linger": True}}, budget_bytes=budget_bytes
    )
    with held_by(pipeline, plan) as held:
        digest = generate(held, request_for("ltx")).digest
        return held.device.used_bytes > vae_bytes, digest


def test_a_lingering_component_stays_while_the_budget_allows_and_goes_when_not() -> None:
    pipeline = live_pipeline("ltx")
    both = weights_bytes(pipeline.transformer) + weights_bytes(pipeline.vae)
    assert used_after_denoise(both) == (True, bare_digest("ltx"))
    assert used_after_denoise(both - 1) == (False, bare_digest("ltx"))


@pytest.mark.parametrize("hold_blocks", [False, True])
def test_weights_used_outside_every_call_are_read_where_they_are(hold_blocks: bool) -> None:
    pipeline = live_pipeline("flux")
    block = pipeline.transformer.transformer_blocks[1]
    wanted = block.ff.net[2](torch.ones(1, block.ff.net[2].in_features))
    with held_by(pipeline, plan_for(pipeline, {**LAYERWISE, "hold": hold_blocks})) as held:
        assert held.device.used_bytes == 0
        assert torch.equal(block.ff.net[2](torch.ones(1, block.ff.net[2].in_features)), wanted)
        assert held.device.used_bytes == 0
        assert generate(held, request_for("flux")).digest == bare_digest("flux")


def test_an_abandoned_pipeline_loses_its_hooks_and_nothing_is_copied_back() -> None:
    pipeline = own_pipeline("ltx")
    hooks_before = [entry for entry in state_of(pipeline) if len(entry) == 2]
    with EmulatedDevice(GIB) as device:
        held = hold(pipeline, plan_for(pipeline), device)
        held.abandon()
        assert device.activity.copied_bytes("d2h") == 0
    assert [entry for entry in state_of(pipeline) if len(entry) == 2] == hooks_before
