"""What a plan can't hold, or what would break a held pipeline, is refused by name."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from live_pipelines import (
    bare_digest,
    held_by,
    live_pipeline,
    own_pipeline,
    request_for,
)
from plans import LAYERWISE, plan_for
from roost.errors import PlanMismatch, RoostError, UsageError
from roost.residency.run.generate import generate


@pytest.mark.parametrize(
    "move",
    [
        lambda pipeline: pipeline.to("cpu"),
        lambda pipeline: pipeline.enable_model_cpu_offload(),
        lambda pipeline: pipeline.enable_sequential_cpu_offload(),
        lambda pipeline: pipeline.enable_group_offload(torch.device("cpu")),
        lambda pipeline: pipeline.remove_all_hooks(),
    ],
)
def test_what_would_move_weights_past_the_plan_is_refused_until_it_is_closed(move: Callable[[Any], Any]) -> None:
    pipeline = live_pipeline("flux")
    with (
        held_by(pipeline, plan_for(pipeline, "snapshot-offload")),
        pytest.raises(RoostError, match="while a Roost plan holds"),
    ):
        move(pipeline)
    pipeline.to("cpu")


def test_a_second_thread_is_refused() -> None:
    pipeline = live_pipeline("ltx")
    caught: list[BaseException] = []

    def intrude(*_: object) -> None:
        def call() -> None:
            try:
                pipeline.vae.encode(torch.zeros(1, 3, 9, 64, 64))
            except RoostError as error:
                caught.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        handle = pipeline.transformer.proj_in.register_forward_pre_hook(intrude)
        digest = generate(held, request_for("ltx")).digest
        handle.remove()
    assert "another thread" in str(caught[0])
    assert digest == bare_digest("ltx")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"class_name": "SD3Transformer2DModel"}, "SD3Transformer2DModel"),
        ({"stacks": []}, "transformer_blocks"),
    ],
)
def test_a_plan_for_another_model_is_refused_with_the_difference(changed: dict[str, Any], named: str) -> None:
    pipeline = live_pipeline("flux")
    plan = plan_for(pipeline)
    other = plan.components["transformer"].model_copy(update=changed)
    plan = plan.model_copy(update={"components": {**plan.components, "transformer": other}})
    with pytest.raises(PlanMismatch, match=named):
        held_by(pipeline, plan)


def test_a_plan_with_another_number_of_blocks_is_refused() -> None:
    pipeline = own_pipeline("flux")
    plan = plan_for(pipeline)
    del pipeline.transformer.transformer_blocks[2]
    with pytest.raises(PlanMismatch, match=r"'transformer_blocks' is 2 blocks .* and 3 blocks"):
        held_by(pipeline, plan)


def test_a_component_that_the_plan_lacks_is_refused() -> None:
    pipeline = own_pipeline("flux")
    plan = plan_for(pipeline)
    pipeline.register_modules(vae=None)
    with pytest.raises(PlanMismatch, match="'vae' is in the plan but not in the pipeline"):
        held_by(pipeline, plan)


def test_what_can_not_be_held_is_refused() -> None:
    pipeline = own_pipeline("ltx")
    with pytest.raises(UsageError, match="torchrun"):
        held_by(pipeline, plan_for(pipeline, "fsdp"))
    with held_by(pipeline, plan_for(pipeline)), pytest.raises(UsageError, match="another Roost plan"):
        held_by(pipeline, plan_for(pipeline))
    shared = pipeline.vae.decoder.conv_in.conv
    pipeline.transformer.proj_extra = shared
    with pytest.raises(UsageError, match="share weights"):
        held_by(pipeline, plan_for(pipeline))
    pipeline.transformer.proj_extra = torch.nn.Linear(2, 2, device="meta")
    with pytest.raises(UsageError, match=r"'proj_extra.weight' was never loaded"):
        held_by(pipeline, plan_for(pipeline))


@pytest.mark.parametrize("asked", [{"num_frames": 9}, {"fps": 3}])
def test_a_value_that_the_pipeline_has_no_parameter_for_is_a_usage_error(asked: dict[str, Any]) -> None:
    pipeline = live_pipeline("flux")
    with (
        held_by(pipeline, plan_for(pipeline)) as held,
        pytest.raises(UsageError, match=f"FluxPipeline has no parameter '{next(iter(asked))}'"),
    ):
        generate(held, request_for("flux", **asked))


def test_only_what_a_pipeline_refuses_before_it_computes_is_the_caller_s_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = live_pipeline("flux")

    def break_down(*_: object, **__: object) -> None:
        raise ValueError("a bug of its own")

    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        with pytest.raises(UsageError, match="refuses the call: `max_sequence_length`"):
            generate(held, request_for("flux", max_sequence_length=9999))
        with monkeypatch.context() as patched:
            patched.setattr(pipeline.image_processor, "postprocess", break_down)
            with pytest.raises(ValueError, match="a bug of its own"):
                generate(held, request_for("flux"))
        assert generate(held, request_for("flux")).digest == bare_digest("flux")
