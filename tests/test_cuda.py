"""On a CUDA device: every strategy gives the bits of `resident`, within its budget."""

import gc
import sys
from pathlib import Path

import pytest
import torch

from engine_cases import with_pinned
from live_pipelines import STRATEGIES, bare_digest, own_pipeline, request_for, state_of
from plans import LAYERWISE, plan_for
from roost.errors import OutOfMemory
from roost.residency.device.cuda import CudaDevice
from roost.residency.hold.attach import hold
from roost.residency.run.generate import generate
from roost.residency.run.loader import Source, load_held
from roost.residency.weights.shared.masters import SharedMasters
from shared_worlds import copied_bytes
from tiny_models import build

pytestmark = pytest.mark.gpu
GIB = 1024**3


@pytest.mark.parametrize("name", ["wan2.2", "flux"])
def test_every_strategy_gives_the_bits_of_resident_twice(name: str) -> None:
    assert bare_digest(name)  # a first call leaves settings of its own on a pipeline
    pipeline = own_pipeline(name)
    before = state_of(pipeline)
    digests = set()
    for strategy in STRATEGIES.values():
        plan = plan_for(pipeline, strategy)
        with CudaDevice(GIB) as device, hold(pipeline, plan, device) as held:
            for _ in range(2):
                made = generate(held, request_for(name))
                digests.add(made.digest)
                assert 0 < made.peak_bytes <= GIB
    assert len(digests) == 1
    assert state_of(pipeline) == before


def test_closing_gives_back_every_byte() -> None:
    pipeline = own_pipeline("flux")
    gc.collect()  # what tests before left behind
    with CudaDevice(GIB) as device:
        before = device.used_bytes
        with hold(pipeline, plan_for(pipeline), device):
            assert device.used_bytes > before
        assert device.used_bytes == before


def test_a_budget_binds_the_allocator_until_it_is_closed() -> None:
    pipeline = own_pipeline("flux")
    big = torch.zeros(40 * 1024**2, dtype=torch.uint8)
    with CudaDevice(32 * 1024**2) as device:
        with pytest.raises(torch.OutOfMemoryError):
            device.allocate(big.nbytes)
        pipeline.transformer.register_buffer("big", big)
        with pytest.raises(OutOfMemory, match="placing transformer"):
            hold(pipeline, plan_for(pipeline), device)
    assert torch.zeros(40 * 1024**2, dtype=torch.uint8, device="cuda").numel() == big.numel()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has memory files")
def test_shared_masters_are_pinned_in_place_and_give_the_bits_of_one_s_own(tmp_path: Path) -> None:
    model = build("flux", tmp_path / "model")
    plan = with_pinned(plan_for(own_pipeline("flux"), {**LAYERWISE, "resident_blocks": 1}))
    with CudaDevice(GIB) as device, load_held(plan, model, device) as alone:
        wanted = generate(alone, request_for("flux")).digest
    source = Source(shared=SharedMasters(tmp_path))
    with CudaDevice(GIB) as device, load_held(plan, model, device, source=source) as first:
        with CudaDevice(GIB) as other, load_held(plan, model, other, source=source) as second:
            digests = {generate(each, request_for("flux")).digest for each in (first, second)}
            assert first.changes == second.changes == []
            assert first.transfers.pinned_bytes == second.transfers.pinned_bytes > 0
            assert copied_bytes() == 0
        assert digests == {wanted}
