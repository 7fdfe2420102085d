"""While a streamed block runs its modules hold stand-ins for their parameters; who relies on the objects is right."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

from live_pipelines import held_by, state_of
from plans import LAYERWISE, plan_for
from roost.residency.hold.attach import Held
from toy_pipelines import WIDTH, state, toy_pipeline


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


class Keeping(torch.nn.Module):
    """Reads its weight from where it keeps it, outside of its parameters."""

    def __init__(self, keep: Callable[[torch.nn.Parameter], Any], find: Callable[[Any], torch.Tensor]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.__dict__["kept"] = keep(self.weight)
        self._find = find

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return torch.tanh(state @ self._find(self.kept) + state @ self.weight)


class Tied(torch.nn.Module):
    """One parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.second.weight = self.first.weight

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.second(self.first(state)))


class Recurrent(torch.nn.Module):
    """Its parameters are in a flat list, too."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = torch.nn.GRU(WIDTH, WIDTH)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.cell(state[None])[0][0]
        return result


class Counting(torch.nn.Module):
    """Puts a new buffer in place of its old one in every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(WIDTH, WIDTH)
        self.register_buffer("calls", torch.zeros(WIDTH))

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        return torch.tanh(self.linear(state)) * self.calls


class Listed(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factors = torch.nn.ParameterList(torch.randn(WIDTH, WIDTH) for _ in range(2))

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        for factor in self.factors:
            state = torch.tanh(state @ factor)
        return state


BLOCKS: dict[str, Callable[[], torch.nn.Module]] = {
    "attribute": lambda: Keeping(lambda weight: weight, lambda kept: kept),
    "list": lambda: Keeping(lambda weight: [weight], lambda kept: kept[0]),
    "dictionary": lambda: Keeping(lambda weight: {"own": weight}, lambda kept: kept["own"]),
    "recurrent": Recurrent,
    "tied": Tied,
    "parametrised": lambda: weight_norm(torch.nn.Linear(WIDTH, WIDTH)),
    "parameter list": Listed,
    "new buffers": Counting,
}


class Stack(torch.nn.Module):
    def __init__(self, block: Callable[[], torch.nn.Module]) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(block() for _ in range(5))

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            state = block(state)
        return state


def pipeline_of(block: Callable[[], torch.nn.Module]) -> Any:
    torch.manual_seed(0)
    transformer = Stack(block).eval().requires_grad_(False)
    return SimpleNamespace(components={"transformer": transformer}, transformer=transformer)


@contextmanager
def streamed(pipeline: Any) -> Iterator[Held]:
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        yield held


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_are_exact_wherever_they_keep_their_weights(kind: str) -> None:
    plain, pipeline = pipeline_of(BLOCKS[kind]), pipeline_of(BLOCKS[kind])
    before = state_of(pipeline) if kind != "new buffers" else None
    with streamed(pipeline):
        for _ in range(3):
            assert torch.equal(pipeline.transformer(state()), plain.transformer(state()))
    if before is not None:
        assert state_of(pipeline) == before
    assert torch.equal(pipeline.transformer(state()), plain.transformer(state()))


def test_parameters_are_the_same_objects_between_forwards_and_their_likeness_during_one() -> None:
    pipeline = toy_pipeline()
    linear = pipeline.transformer.blocks[2].linear
    own, table = linear.weight, linear._parameters
    own.origin = "a library's note"
    during: list[Any] = []
    handle = linear.register_forward_pre_hook(lambda *_: during.append(linear.weight))
    with streamed(pipeline):
        pipeline.transformer(state())
        pipeline.transformer(state())
        assert linear.weight is own
        assert linear._parameters is table
    handle.remove()
    assert all(each is not own for each in during)
    assert [(type(each), each.origin, each.requires_grad) for each in during] == [
        (torch.nn.Parameter, "a library's note", False)
    ] * 2


def test_after_a_forward_that_raised_the_modules_hold_their_own_parameters() -> None:
    pipeline = toy_pipeline()
    linear = pipeline.transformer.blocks[1].linear
    own = linear.weight

    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    with streamed(pipeline):
        handle = linear.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="planted"):
            pipeline.transformer(state())
        handle.remove()
        assert linear.weight is own


def test_a_module_that_takes_over_anothers_parameter_between_generations_is_streamed_in_turn() -> None:
    pipeline = toy_pipeline()
    block = pipeline.transformer.blocks[3]
    with streamed(pipeline) as held:
        right = pipeline.transformer(state())
        held.runtime.end_call()
        other = torch.nn.Linear(WIDTH, WIDTH)
        other.weight, other.bias = block.linear.weight, block.linear.bias
        block.linear = other
        assert [torch.equal(pipeline.transformer(state()), right) for _ in range(2)] == [True] * 2
