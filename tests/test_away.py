"""A component that another worker has looks like its own and takes no memory; reading its weights is refused."""

from __future__ import annotations

import copy
import tracemalloc
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import torch

from plans import component_plan
from roost.errors import RoostError
from roost.residency.hold.away import AwayComponent, dtype_of, small_values

CPU = torch.device("cpu")
MIB = 1 << 20
PLAN = component_plan("unet", torch.nn.Linear(2, 2), strategy="resident")


class Part(torch.nn.Module):
    """Weights of several dtypes, large and small, some of them buffers."""

    def __init__(self, rows: int = 256, device: str = "cpu") -> None:
        super().__init__()
        self.linear = torch.nn.Linear(256, rows, dtype=torch.bfloat16, device=device)
        self.norm = torch.nn.LayerNorm(4, device=device)
        self.tied = self.linear
        self.register_buffer("mean", torch.arange(4, dtype=torch.float32, device=device))
        self.register_buffer("counts", torch.arange(3, device=device))
        self.register_buffer("frequencies", torch.zeros(64 * 256, device=device), persistent=False)
        self.register_parameter("nothing", None)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return self.linear(value)


def away(module: torch.nn.Module, device: torch.device = CPU) -> torch.nn.Module:
    AwayComponent("unet", module, PLAN, device)
    return module


@pytest.fixture
def part() -> torch.nn.Module:
    return away(Part())


def shape_of(module: torch.nn.Module) -> list[tuple[Any, ...]]:
    """All that may be asked of its weights."""
    tables = (("parameter", module.named_parameters), ("buffer", module.named_buffers))
    return [(kind, name, each.dtype, each.shape) for kind, named in tables for name, each in named()]


def test_it_looks_like_the_component(part) -> None:
    assert shape_of(part) == shape_of(Part())
    assert part.dtype == torch.bfloat16
    assert {each.device for each in part.parameters()} == {CPU}
    assert sum(each.numel() for each in part.parameters()) == sum(each.numel() for each in Part().parameters())
    assert [name for name, _ in part.named_modules()] == [name for name, _ in Part().named_modules()]


def test_its_weights_are_said_to_be_on_the_worker_s_device() -> None:
    part = away(Part(device="meta"), torch.device("cpu"))
    assert next(part.parameters()).device == CPU
    assert part.frequencies.device == CPU


def test_it_takes_no_memory() -> None:
    process = psutil.Process()
    tracemalloc.start()
    before_bytes = process.memory_info().rss
    try:
        part = away(Part(rows=2**24, device="meta"))
        part.to(torch.float32).half().to("cpu", torch.bfloat16)
        traced_bytes, taken_bytes = tracemalloc.get_traced_memory()[1], process.memory_info().rss - before_bytes
    finally:
        tracemalloc.stop()
    assert part.linear.weight.nbytes == 2**24 * 256 * 2  # 8 GiB
    assert traced_bytes < 2 * MIB
    assert taken_bytes < 64 * MIB


CONVERSIONS: dict[str, Callable[[torch.nn.Module], torch.nn.Module]] = {
    "to a dtype": lambda part: part.to(torch.float16),
    "to a dtype by name": lambda part: part.to(dtype=torch.float64),
    "to a device and a dtype": lambda part: part.to("cpu", torch.float32),
    "like a tensor": lambda part: part.to(torch.zeros(1, dtype=torch.float64)),
    "half": lambda part: part.half(),
    "bfloat16": lambda part: part.bfloat16(),
    "float": lambda part: part.float(),
    "double": lambda part: part.double(),
    "of one child": lambda part: (part.linear.float(), part)[1],
    "one after another": lambda part: part.float().half().to(torch.bfloat16).double(),
    "to its device": lambda part: part.to("cpu"),
    "apply": lambda part: part.apply(lambda each: None),
    "eval": lambda part: part.eval(),
    "no gradients": lambda part: part.requires_grad_(False),
    "channels last": lambda part: part.to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
def test_it_is_converted_as_the_component_would_be(convert, part) -> None:
    assert convert(part) is part
    real = convert(Part())
    assert shape_of(part) == shape_of(real)
    assert dtype_of(part) == dtype_of(real)


def test_its_dtype_is_one_only_where_all_agree(part) -> None:
    assert dtype_of(part) is None
    assert dtype_of(part.float()) == torch.float32
    assert dtype_of(torch.nn.Identity()) is None


READS: dict[str, Callable[[torch.nn.Module], Any]] = {
    "arithmetic": lambda part: part.mean + 1,
    "a call's": lambda part: part(torch.zeros(1, 256, dtype=torch.bfloat16)),
    "of a number": lambda part: part.norm.weight.sum().item(),
    "an item": lambda part: part.mean[0],
    "a view": lambda part: part.mean.view(1, 4),
    "a list": lambda part: part.mean.tolist(),
    "to elsewhere": lambda part: part.mean.to(torch.float16),
    "a copy": lambda part: part.mean.clone(),
    "into another": lambda part: torch.zeros(4).copy_(part.mean),
    "of several": lambda part: torch.cat([torch.zeros(4), part.mean]),
    "comparison": lambda part: part.mean == torch.zeros(4),
    "in place": lambda part: part.mean.zero_(),
    "data": lambda part: part.mean.data.sum(),
    "detached": lambda part: part.mean.detach().sum(),
    "numpy": lambda part: part.mean.numpy(),
    "bool": lambda part: bool(part.counts[0] > 0),
    "a deep copy's": lambda part: copy.deepcopy(part).mean.sum(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reading_a_weight_is_refused_by_the_component_s_name(read, part) -> None:
    with pytest.raises(RoostError, match=r"the pipeline reads weights of unet itself, which another worker has; plan"):
        read(part)


def test_a_weight_can_be_shown(part) -> None:
    assert repr(part.mean) == "<weight of unet, which another worker has>"
    assert "Linear" in repr(part)


# The small ones, which pipelines read.


@pytest.fixture
def real() -> torch.nn.Module:
    part = Part()
    torch.nn.init.normal_(part.norm.weight, generator=torch.Generator().manual_seed(0))
    return part


def test_only_small_weights_are_given_away_as_copies_in_host_memory(real) -> None:
    values = small_values(real)
    assert set(values) == {"linear.bias", "tied.bias", "norm.weight", "norm.bias", "mean", "counts"}
    assert values["mean"].data_ptr() != real.mean.data_ptr()


def test_small_weights_arrive_and_large_ones_stay_away(part, real) -> None:
    handle = AwayComponent("unet", part, PLAN, CPU)
    handle.take(small_values(real))
    assert torch.equal(part.mean, real.mean)
    assert torch.equal(part.counts + 1, real.counts + 1)
    assert torch.equal(part.norm(torch.ones(2, 4)), real.norm(torch.ones(2, 4)))
    assert torch.equal(part.tied.bias, real.linear.bias)
    assert shape_of(part) == shape_of(real)
    with pytest.raises(RoostError):
        part.linear.weight.sum()
    with pytest.raises(RoostError):
        part.frequencies.sum()
    assert set(small_values(part)) == set(small_values(real))


def test_small_weights_that_arrived_are_converted_with_the_rest(part, real) -> None:
    AwayComponent("unet", part, PLAN, CPU).take(small_values(real))
    part.to(torch.float16)
    real.to(torch.float16)
    assert shape_of(part) == shape_of(real)
    assert torch.equal(part.norm.weight, real.norm.weight)
    assert torch.equal(part.counts, real.counts)


def test_values_of_no_weight_of_its_are_left(part) -> None:
    AwayComponent("unet", part, PLAN, CPU).take({"other": torch.ones(1), "linear.other": torch.ones(1)})
    assert shape_of(part) == shape_of(Part())
