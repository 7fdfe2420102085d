"""On the emulated device a weight that a call reads from host memory is an error, as on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from live_pipelines import STRATEGIES
from plans import GIB, LAYERWISE, plan_for
from roost.errors import RoostError
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import Held, hold
from toy_pipelines import WIDTH, ToyModel, state, toy_pipeline


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


@contextmanager
def watched(pipeline: Any, strategy: Any) -> Iterator[Held]:
    """``pipeline`` held by a device that watches every operation."""
    with (
        EmulatedDevice(GIB, count_activations=True) as device,
        hold(pipeline, plan_for(pipeline, strategy), device) as held,
    ):
        yield held


READS = {
    "alone": lambda table, latents: table.sqrt(),
    "in a view": lambda table, latents: latents @ table.T[:, :4],
    "in place": lambda table, latents: latents.clone().add_(table[0]),
    "in a list": lambda table, latents: torch.cat([latents, table]),
    "by name": lambda table, latents: torch.nn.functional.layer_norm(latents, (WIDTH,), weight=table[0]),
    "as a target": lambda table, latents: table.mul_(2),
}


@pytest.mark.parametrize("read", READS)
def test_a_weight_in_host_memory_is_named_however_it_is_read(read: str) -> None:
    table, latents = torch.ones(WIDTH, WIDTH), state()
    with EmulatedDevice(GIB, count_activations=True) as device:
        with device.counting_activations(), device.checking_reads("transformer", [("rope.table", table)]):
            latents.exp()
            with pytest.raises(RoostError, match=r"^transformer\.rope\.table is in host memory.*detach the plan"):
                READS[read](table, latents)
            with device.engine_work():
                READS[read](table, latents)
        READS[read](table, latents)


def test_numbers_copies_and_shapes_of_weights_in_host_memory_may_be_taken() -> None:
    scale, table = torch.tensor(2.0), torch.ones(WIDTH)
    with (
        EmulatedDevice(GIB, count_activations=True) as device,
        device.counting_activations(),
        device.checking_reads("transformer", [("scale", scale), ("table", table)]),
    ):
        moved = torch.empty_like(table).copy_(table) + table.new_zeros(1) + table.to(torch.float64)
        assert (moved * scale + table[0].item()).tolist() == [5.0] * WIDTH


def test_weights_on_the_device_and_what_operations_made_there_may_be_read() -> None:
    with EmulatedDevice(GIB, count_activations=True) as device:
        weight = device.allocate(4 * WIDTH).view(torch.float32)
        with device.counting_activations():
            made = torch.ones(WIDTH) * 2
        device.forget_activations()
        with (
            device.counting_activations(),
            device.checking_reads("transformer", [("weight", weight), ("cached", made)]),
        ):
            assert (weight * 0 + made).shape == (WIDTH,)


def with_forward(model: ToyModel, forward: Any) -> None:
    """Makes ``forward`` that of ``model``, as a library's own class would have it."""
    model.__class__ = type("OwnModel", (type(model),), {"forward": forward})


@pytest.mark.parametrize("strategy", [LAYERWISE, "resident", "snapshot-offload"], ids=str)
def test_a_weight_that_is_read_outside_its_blocks_forward_is_read_on_the_device(strategy: Any) -> None:
    pipeline = toy_pipeline()

    def forward(self: Any, latents: torch.Tensor) -> torch.Tensor:
        return ToyModel.forward(self, latents) * self.blocks[4].linear.weight[0]

    with_forward(pipeline.transformer, forward)
    right = pipeline.transformer(state())
    with watched(pipeline, strategy):
        for _ in range(2):
            assert torch.equal(pipeline.transformer(state()), right)


class Rope(torch.nn.Module):
    """Computes a buffer anew in each call, as OmniGen's does, and one in the first call alone."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.zeros(WIDTH), persistent=False)
        self.register_buffer("kept", None, persistent=False)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        self.frequencies = 1.0 / (1.5 ** torch.arange(WIDTH, device=latents.device))
        if self.kept is None:
            self.kept = self.frequencies * 2
        return latents * self.frequencies[None] + self.kept


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_buffers_that_a_component_computes_itself_are_where_it_runs(strategy: str) -> None:
    pipeline = toy_pipeline()
    pipeline.transformer.rope = Rope()

    def forward(self: Any, latents: torch.Tensor) -> torch.Tensor:
        return ToyModel.forward(self, self.rope(latents))

    with_forward(pipeline.transformer, forward)
    right = pipeline.transformer(state())
    pipeline.transformer.rope.kept = None
    with watched(pipeline, STRATEGIES[strategy]) as held:
        for _ in range(3):
            assert torch.equal(pipeline.transformer(state()), right)
            pipeline.vae(state())
        held.runtime.end_call()
        assert torch.equal(pipeline.transformer(state()), right)
    assert torch.equal(pipeline.transformer(state()), right)
