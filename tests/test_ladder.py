"""The last step when memory is short: what is on the device as a whole streams, with the same bits."""

from pathlib import Path
from typing import Any

import pytest
import torch

from live_pipelines import bare_digest, held_by, live_pipeline, request_for, state_of, weights_bytes
from out_of_memory import failing_forwards
from plans import LAYERWISE, plan_for
from roost.api.plans.update import update_plan
from roost.errors import OutOfMemory
from roost.plan import plan_to_yaml, read_plan
from roost.residency.run.generate import generate
from toy_pipelines import state, toy_pipeline


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


# With how many shortages it is: a VAE that is still there goes first.
WHOLE: dict[str, tuple[Any, list[int]]] = {
    "resident": ("resident", [1, 2]),
    "snapshot-offload": ("snapshot-offload", [1, 2]),
    "component-offload": ("component-offload", [1]),
    "held": ({**LAYERWISE, "hold": True}, [1, 2]),
}


@pytest.mark.parametrize("strategy", WHOLE)
def test_a_component_that_is_there_as_a_whole_streams_its_blocks_at_last(strategy: str, tmp_path: Path) -> None:
    pipeline, path = toy_pipeline(), tmp_path / "plan.yaml"
    right = pipeline.vae(pipeline.transformer(state()))
    parameters, failing = WHOLE[strategy]
    plan, before = plan_for(pipeline, parameters), state_of(pipeline)
    path.write_text(plan_to_yaml(plan))
    with held_by(pipeline, plan) as held:
        pipeline.vae(pipeline.transformer(state()))
        held.runtime.end_call()
        with failing_forwards(pipeline.transformer.blocks, *failing):
            latents = pipeline.transformer(state())
        assert held.changes[-1].partition(",")[0] == "transformer: its blocks stream through 2 slots"
        for _ in range(2):
            assert torch.equal(pipeline.vae(latents), right)
            assert torch.equal(pipeline.transformer(state()), latents)
        assert 0 < held.runtime.components["transformer"].device_bytes < weights_bytes(pipeline.transformer)
        update_plan(path, held.demotions)
    assert held.device.used_bytes == 0
    assert state_of(pipeline) == before
    updated = read_plan(path)
    transformer = updated.components["transformer"]
    assert (transformer.strategy, transformer.resident_blocks, transformer.slots) == ("layerwise-offload", 0, 2)
    assert (transformer.hold, transformer.decided_by) == (False, "run:out-of-memory")
    with held_by(pipeline, updated) as held:
        assert torch.equal(pipeline.vae(pipeline.transformer(state())), right)
        assert held.demotions == {}


@pytest.mark.parametrize("strategy", ["resident", "snapshot-offload"])
def test_what_can_not_be_streamed_exactly_is_not_streamed(strategy: str) -> None:
    pipeline = toy_pipeline()
    blocks = pipeline.transformer.blocks
    blocks[0].borrowed = [blocks[1].linear.weight]
    with (
        held_by(pipeline, plan_for(pipeline, "resident", components={"vae": {"strategy": strategy}})) as held,
        failing_forwards(blocks, *range(1, 99)),
        pytest.raises(OutOfMemory, match="ask for a smaller size"),
    ):
        pipeline.transformer(state())
    assert not any("stream" in each for each in held.changes)


@pytest.mark.parametrize("name", ["flux", "wan2.2"])
def test_a_pipeline_without_room_for_its_transformer_ends_with_the_digest_of_one_with_room(name: str) -> None:
    pipeline = live_pipeline(name)
    parts = [part for key, part in pipeline.transformer.named_modules() if key.endswith("to_k")]
    models = sum(isinstance(each, torch.nn.Module) for each in pipeline.components.values())
    with held_by(pipeline, plan_for(pipeline, "resident")) as held:
        with failing_forwards(parts, *range(1, models + 1)):  # all others leave before
            assert generate(held, request_for(name)).digest == bare_digest(name)
        assert held.demotions["transformer"]["strategy"] == "layerwise-offload"
        assert generate(held, request_for(name)).digest == bare_digest(name)
