"""Packed weights on a device that only knows where tensors are: no operation mixes host and device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fake_accelerator import NAME, fake_accelerator
from live_pipelines import STRATEGIES
from packed_models import packed_pipeline, state
from plans import plan_for
from roost.pipelines.formats.packed_tensors import parts_of
from roost.residency.hold.attach import hold
from roost.residency.weights.objects import parameter_tables

STREAMING = [name for name in STRATEGIES if name != "resident"]  # fakes can't be bound to what modules hold
# GGUF of fewer bits makes tables of numbers on the device, which this backend can not
KINDS = ("gguf Q8_0", "torchao int8", "torchao float8", "gguf BF16", "torchao intx", "float8, scale a parameter")


@pytest.mark.dealt(3)
@pytest.mark.parametrize("strategy", STREAMING)
@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_weight_is_on_the_device_with_all_its_parts(kind: str, strategy: str) -> None:
    pipeline = packed_pipeline(kind)
    seen: set[str] = set()

    def look(layer: Any, _inputs: object) -> None:
        for each in layer.parameters():
            seen.update(part.device.type for part in (each, *(part for _, part in parts_of(each))))

    for block in pipeline.transformer.blocks:
        block.first.register_forward_pre_hook(look)
    with fake_accelerator() as device, torch.no_grad():
        with hold(pipeline, plan_for(pipeline, STRATEGIES[strategy]), device) as held:
            for _ in range(2):
                result = pipeline.transformer(device.put(state()))
                assert result.device.type == NAME
                held.runtime.end_call()
        assert device.used == 0
    assert seen == {NAME}
    assert all(each.device.type == "cpu" for each in pipeline.transformer.parameters())


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_part_that_stays_on_the_host_is_noticed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = packed_pipeline(kind)
    likeness: Any = parameter_tables.likeness

    def last_stays(tensor: torch.Tensor, parts: Any) -> torch.Tensor:
        own = [part.detach() for _, part in parts_of(tensor)]
        made: torch.Tensor = likeness(tensor, [*list(parts)[:-1], own[-1]])
        return made

    monkeypatch.setattr(parameter_tables, "likeness", last_stays)
    with (
        fake_accelerator() as device,
        torch.no_grad(),
        hold(pipeline, plan_for(pipeline, "snapshot-offload"), device),
        pytest.raises(RuntimeError, match="device"),
    ):
        pipeline.transformer(device.put(state()))
