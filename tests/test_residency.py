"""A held pipeline gives the same bits under every strategy, also after errors, and comes off clean."""

import re

import pytest
import torch

from live_pipelines import (
    SIX_FAMILIES,
    STRATEGIES,
    bare_digest,
    held_by,
    live_pipeline,
    own_pipeline,
    request_for,
    state_of,
)
from plans import LAYERWISE, plan_for
from roost.residency.engine.stages import StageEvent
from roost.residency.run.generate import generate

STREAMED = re.compile("layerwise-offload(?!, held)")


# What streams without being held is test_engine_bits' business.
@pytest.mark.dealt(3)
@pytest.mark.parametrize("strategy", [each for each in STRATEGIES if not STREAMED.match(each)])
@pytest.mark.parametrize("name", SIX_FAMILIES)
def test_every_strategy_gives_the_bits_of_the_bare_pipeline_twice(name: str, strategy: str) -> None:
    pipeline = live_pipeline(name)
    bare = bare_digest(name)
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        assert [generate(held, request_for(name)).digest for _ in range(2)] == [bare, bare]
    assert held.device.used_bytes == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_closing_leaves_the_pipeline_as_it_was(strategy: str) -> None:
    pipeline = live_pipeline("wan2.2")
    assert bare_digest("wan2.2")  # a first call leaves settings of its own on a pipeline
    before = state_of(pipeline)
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        assert state_of(pipeline) != before
        generate(held, request_for("wan2.2"))
    assert state_of(pipeline) == before


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_submodule_converted_while_its_component_is_in_use_stays_converted(strategy: str) -> None:
    pipeline = own_pipeline("ltx")
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        generate(held, request_for("ltx"))
        pipeline.vae.decoder.to(torch.float64)
    assert {each.dtype for each in pipeline.vae.decoder.parameters()} == {torch.float64}
    assert {each.dtype for each in pipeline.vae.encoder.parameters()} == {torch.float32}


def test_moving_a_held_component_to_a_device_does_nothing() -> None:
    pipeline = live_pipeline("ltx")
    with held_by(pipeline, plan_for(pipeline, "snapshot-offload")) as held:
        generate(held, request_for("ltx"))
        weight = pipeline.vae.decoder.conv_in.conv.weight
        address = weight.data_ptr()
        assert pipeline.vae.to("cpu") is pipeline.vae.to(device="cpu", dtype=torch.float32) is pipeline.vae
        assert weight.data_ptr() == address


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("error", [RuntimeError, Interrupted])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_call_after_a_failed_one_is_right(strategy: str, error: type[BaseException]) -> None:
    pipeline = live_pipeline("ltx")
    bare = bare_digest("ltx")

    def fail(*_: object) -> None:
        raise error("planted")

    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        for part in (pipeline.transformer.transformer_blocks[1].attn1.to_q, pipeline.vae.decoder.conv_in):
            handle = part.register_forward_pre_hook(fail)
            with pytest.raises(error, match="planted"):
                generate(held, request_for("ltx"))
            handle.remove()
        assert generate(held, request_for("ltx")).digest == bare
    assert held.device.used_bytes == 0


def test_a_method_that_is_no_forward_brings_its_component_in() -> None:
    pipeline = live_pipeline("ltx")
    picture = torch.zeros(1, 3, 9, 64, 64)
    wanted = pipeline.vae.encode(picture).latent_dist.mode()
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        assert torch.equal(pipeline.vae.encode(picture).latent_dist.mode(), wanted)
        pipeline.maybe_free_model_hooks()
        assert [(stage.name, stage.component) for stage in held.stages] == [("encode image", "vae")]


def test_stages_and_steps_are_reported_in_order() -> None:
    pipeline = live_pipeline("wan2.2")
    events: list[StageEvent] = []
    with held_by(pipeline, plan_for(pipeline, "snapshot-offload"), on_event=events.append) as held:
        made = generate(held, request_for("wan2.2"))
    names = ["text encode", "denoise (high noise)", "denoise (low noise)", "decode"]
    assert [stage.name for stage in made.stages] == names
    assert [event.stage for event in events if event.what == "begin"] == names
    assert [(event.step, event.steps) for event in events if event.what == "step"] == [(1, 2), (2, 2)]
    assert [event.seconds for event in events if event.what == "end"] == [stage.seconds for stage in made.stages]
    assert sum(stage.seconds for stage in made.stages) <= made.seconds
    assert made.latent_digest is not None
    assert made.peak_bytes == max(stage.peak_bytes for stage in made.stages)


def test_encoders_that_take_turns_are_one_record_each() -> None:
    pipeline = live_pipeline("sd3")
    with held_by(pipeline, plan_for(pipeline, "snapshot-offload")) as held:
        stages = generate(held, request_for("sd3")).stages
    encoders = [stage.component for stage in stages if stage.name == "text encode"]
    assert encoders == ["text_encoder", "text_encoder_2", "text_encoder_3"]


def test_tiling_is_on_while_the_plan_holds() -> None:
    pipeline = live_pipeline("flux")
    plan = plan_for(pipeline)
    tiled = plan.components["vae"].model_copy(update={"tiling": True})
    plan = plan.model_copy(update={"components": {**plan.components, "vae": tiled}})
    with held_by(pipeline, plan):
        assert pipeline.vae.use_tiling
    assert not pipeline.vae.use_tiling
