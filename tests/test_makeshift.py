"""Operations that find no memory and do without, as cuDNN's convolutions, change bits: that is told."""

from __future__ import annotations

import pytest
import torch

from live_pipelines import bare_digest, live_pipeline, request_for, weights_bytes
from plans import GIB, LAYERWISE, plan_for
from roost.residency.device.cuda import CudaDevice
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.engine.component import HeldComponent
from roost.residency.hold.attach import hold
from roost.residency.run.generate import generate

TOLD = (
    "decode (vae): an operation found less memory than it asked for and did without, so that bits may differ from those"
    " with more memory"
)


class CountingDevice(EmulatedDevice):
    """As PyTorch's allocator counts: every error of memory, caught or not."""

    errors = noticed = 0
    short = False

    def allocate(self, count: int) -> torch.Tensor:
        if self.short:
            self.errors += 1
            raise torch.OutOfMemoryError("planted. Tried to allocate 20.00 MiB.")
        return super().allocate(count)

    @property
    def refusals(self) -> int:
        return self.errors - self.noticed

    def notice(self, error: RuntimeError) -> None:
        self.noticed += 1


def test_an_operation_that_did_without_memory_is_told_of_once() -> None:
    pipeline = live_pipeline("flux")
    with CountingDevice(GIB) as device, hold(pipeline, plan_for(pipeline, LAYERWISE), device) as held:

        def do_without(*_: object) -> None:
            device.errors += 1

        handle = pipeline.vae.decoder.register_forward_pre_hook(do_without)
        for _ in range(2):
            generate(held, request_for("flux"))
        handle.remove()
        assert held.changes == [TOLD]


def test_what_could_not_come_ahead_is_nobody_s_makeshift(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = live_pipeline("sd3")
    weights = sum(weights_bytes(each) for each in (pipeline.transformer, pipeline.vae))
    plan = plan_for(pipeline, "snapshot-offload", budget_bytes=weights)
    with CountingDevice(weights) as device, hold(pipeline, plan, device) as held:
        come_ahead = HeldComponent.acquire_ahead

        def short(component: HeldComponent) -> None:
            device.short = True
            come_ahead(component)
            device.short = False

        monkeypatch.setattr(HeldComponent, "acquire_ahead", short)
        for _ in range(2):
            assert generate(held, request_for("sd3")).digest == bare_digest("sd3")
        assert device.errors > 0
        assert held.changes == []


@pytest.mark.gpu
def test_the_allocator_counts_what_its_callers_catch() -> None:
    with CudaDevice(64 * 1024**2) as device:
        before = device.refusals
        with pytest.raises(torch.OutOfMemoryError) as refused:
            torch.empty(128 * 1024**2, dtype=torch.uint8, device=device.device)
        assert device.refusals == before + 1
        device.notice(refused.value)
        assert device.refusals == before
