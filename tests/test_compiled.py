"""Compiled blocks stream: as many graphs as without a plan, the same bits, whenever they were compiled."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch

from live_pipelines import held_by, state_of
from plans import LAYERWISE, plan_for
from toy_pipelines import state, toy_pipeline

HALF = {**LAYERWISE, "resident_blocks": 2}


@pytest.fixture(autouse=True)
def _inference() -> Any:
    torch._dynamo.reset()
    with torch.no_grad():
        yield
    torch._dynamo.reset()


class Graphs:
    """A backend that runs what it is given as it is, and counts it."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, _inputs: Any) -> Any:
        self.count += 1
        return graph.forward


def compile_blocks(pipeline: Any, backend: Any) -> None:
    for block in pipeline.transformer.blocks:
        block.compile(backend=backend, fullgraph=True)


def wrap_blocks(pipeline: Any, backend: Any) -> None:
    blocks = pipeline.transformer.blocks
    for index, block in enumerate(list(blocks)):
        blocks[index] = torch.compile(block, backend=backend)


def compile_whole(pipeline: Any, backend: Any) -> None:
    pipeline.transformer.compile(backend=backend)


@pytest.mark.parametrize("attached", ["before", "after"])
def test_compiled_blocks_are_one_graph_without_breaks(attached: str) -> None:
    pipeline, graphs = toy_pipeline(12), Graphs()
    right = pipeline.transformer(state())
    if attached == "after":
        compile_blocks(pipeline, graphs)
    with held_by(pipeline, plan_for(pipeline, HALF)):
        if attached == "before":
            pipeline.transformer(state())
            compile_blocks(pipeline, graphs)
        for _ in range(3):
            assert torch.equal(pipeline.transformer(state()), right)
    assert graphs.count == 1
    assert torch.equal(pipeline.transformer(state()), right)


@pytest.mark.parametrize("attached", ["before", "after"])
@pytest.mark.parametrize("how", [wrap_blocks, compile_whole])
def test_what_is_compiled_in_other_ways_is_right(how: Callable[[Any, Any], None], attached: str) -> None:
    pipeline = toy_pipeline()
    right = pipeline.transformer(state())
    if attached == "after":
        how(pipeline, Graphs())
    before = state_of(pipeline)
    with held_by(pipeline, plan_for(pipeline, HALF)):
        if attached == "before":
            how(pipeline, Graphs())
        for _ in range(3):
            assert torch.equal(pipeline.transformer(state()), right)
    assert attached == "before" or state_of(pipeline) == before


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_gives_the_bits_that_it_gives_with_everything_resident() -> None:
    results = []
    for strategy in ("resident", HALF):
        torch._dynamo.reset()
        pipeline = toy_pipeline()
        compile_blocks(pipeline, "inductor")
        with held_by(pipeline, plan_for(pipeline, strategy)):
            results += [pipeline.transformer(state()) for _ in range(2)]
    assert all(torch.equal(each, results[0]) for each in results)
