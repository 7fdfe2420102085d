"""Weights of a held component that other code than its forwards reads, copies or saves are right."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from live_pipelines import STRATEGIES, bare_digest, held_by, own_pipeline, request_for
from plans import LAYERWISE, plan_for
from roost.residency.run.generate import generate
from toy_pipelines import state, toy_pipeline


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


class Reading(torch.nn.Module):
    """Reads a weight of one of its blocks in its own forward, and one past every forward."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.blocks, self.embed = model.blocks, model.embed

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(hidden) + self.blocks[1].linear.weight.sum() + self.blocks[4].shift
        for block in self.blocks:
            hidden = block(hidden)
        last = self.blocks[-1].linear
        return torch.nn.functional.linear(hidden, last.weight, last.bias) + self.blocks[0].linear.forward(hidden)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_of_blocks_that_the_models_own_code_reads_are_right(strategy: str) -> None:
    plain, pipeline = toy_pipeline(), toy_pipeline()
    for each in (plain, pipeline):
        each.transformer = each.components["transformer"] = Reading(each.transformer).eval()
    right = plain.transformer(state())
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        for _ in range(3):
            assert torch.equal(pipeline.transformer(state()), right)
            held.runtime.end_call()


def test_a_parameter_that_moves_with_a_copy_is_an_ordinary_one() -> None:
    pipeline = toy_pipeline()
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)):
        pipeline.transformer(state())
        copied = copy.deepcopy(pipeline.transformer.embed.weight)
        assert type(copied) is torch.nn.Parameter
        assert torch.equal(copied, pipeline.transformer.embed.weight)
    assert {type(each) for each in pipeline.transformer.parameters()} == {torch.nn.Parameter}
    assert {type(each) for each in pipeline.transformer.buffers()} == {torch.Tensor}


@pytest.mark.parametrize("strategy", ["snapshot-offload", "layerwise-offload", "layerwise-offload, half resident"])
def test_a_step_callback_that_reads_weights_sees_them_and_changes_nothing(strategy: str) -> None:
    pipeline = own_pipeline("flux")
    right = {name: each.clone() for name, each in pipeline.transformer.named_parameters()}
    wrong: list[str] = []

    def look(pipe: Any, _step: int, _time: Any, state: dict[str, Any]) -> dict[str, Any]:
        named = pipe.transformer.named_parameters()
        wrong.extend(name for name, each in named if not torch.equal(each.data, right[name]))
        return state

    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        for _ in range(2):
            assert generate(held, request_for("flux", callback_on_step_end=look)).digest == bare_digest("flux")
    assert wrong == []


@pytest.mark.parametrize("strategy", ["resident", "layerwise-offload"])
def test_weights_can_be_saved_by_torch_while_held_and_afterwards(strategy: str, tmp_path: Path) -> None:
    pipeline = own_pipeline("sdxl")  # CLIP has numbers of two dtypes in one unit
    encoder = pipeline.text_encoder
    right = {name: each.clone() for name, each in encoder.state_dict().items()}

    def saved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        torch.save(state, tmp_path / "state.pt")
        # As large as the weights: no tensor brings its neighbours' memory with it.
        assert (tmp_path / "state.pt").stat().st_size < 1.5 * sum(each.nbytes for each in right.values()) + 2**16
        found: dict[str, torch.Tensor] = torch.load(tmp_path / "state.pt", weights_only=True)
        return found

    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        generate(held, request_for("sdxl"))
        if strategy != "resident":
            assert all(torch.equal(each, right[name]) for name, each in saved(encoder.state_dict()).items())
    assert all(torch.equal(each, right[name]) for name, each in saved(encoder.state_dict()).items())
