"""Out of memory on a CUDA device: the same bits on less memory."""

import pytest
import torch

from live_pipelines import STRATEGIES, bare_digest, own_pipeline, request_for, state_of
from out_of_memory import failing_forwards
from plans import LAYERWISE, plan_for
from roost.residency.device.cuda import CudaDevice
from roost.residency.hold.attach import hold
from roost.residency.run.generate import generate
from toy_pipelines import state, toy_pipeline

pytestmark = pytest.mark.gpu
GIB = 1024**3


@pytest.mark.parametrize("name", ["wan2.2", "flux"])
def test_a_generation_that_ran_out_of_memory_gives_the_bits_of_one_that_did_not(name: str) -> None:
    assert bare_digest(name)  # a first call leaves settings of its own on a pipeline
    pipeline = own_pipeline(name)
    before = state_of(pipeline)
    attentions = [part for key, part in pipeline.transformer.named_modules() if key.endswith("to_k")]
    plan = plan_for(pipeline, STRATEGIES["layerwise-offload, half resident"])
    with CudaDevice(GIB) as device, hold(pipeline, plan, device) as held:
        right = generate(held, request_for(name)).digest
        with failing_forwards(attentions, 2, 5):
            assert generate(held, request_for(name)).digest == right
        assert len(held.changes) == 2
    assert state_of(pipeline) == before


def test_random_numbers_of_the_device_are_drawn_again() -> None:
    pipeline = toy_pipeline()
    for block in pipeline.transformer.blocks:
        block.linear = torch.nn.Sequential(block.linear, torch.nn.Dropout(0.3).train())
    plan = plan_for(pipeline, {**LAYERWISE, "resident_blocks": 3})
    ends = []
    with torch.no_grad(), CudaDevice(GIB) as device, hold(pipeline, plan, device) as held:
        for failing in ((), (4,)):
            torch.cuda.manual_seed(3)
            with failing_forwards(pipeline.transformer.blocks, *failing):
                ends.append(pipeline.transformer(state().to(device.device)).tolist())
        assert len(held.changes) == 1
    assert ends[0] == ends[1]
