"""Calls that no prediction foresees are right all the same: at worst they are slower."""

import random
import threading
from typing import Any

import pytest
import torch

from live_pipelines import held_by, state_of
from plans import LAYERWISE, plan_for
from roost.errors import RoostError
from toy_pipelines import state, toy_pipeline

STREAMED = [
    pytest.param({**LAYERWISE, "resident_blocks": resident, "prefetch": ahead}, id=f"{resident} stay, {ahead} ahead")
    for resident in (0, 1, 3)
    for ahead in (1, 2)
]
ORDERS = {
    "skipped": [0, 2, 5],
    "twice": [0, 0, 1, 1, 2, 3, 3, 4, 5, 5],
    "backwards": [5, 4, 3, 2, 1, 0],
    "none": [],
    "one": [4],
}


@pytest.fixture(autouse=True)
def _same_kernels() -> Any:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("strategy", STREAMED)
def test_orders_that_change_from_call_to_call_are_exact(strategy: Any) -> None:
    pipeline, chance = toy_pipeline(), random.Random(0)
    orders = [*ORDERS.values(), None, *ORDERS.values(), None]
    orders += [[chance.randrange(6) for _ in range(chance.randrange(9))] for _ in range(20)]
    wanted = [pipeline.transformer(state(), order) for order in orders]
    with held_by(pipeline, plan_for(pipeline, strategy)) as held:
        for order, right in zip(orders, wanted, strict=True):
            assert torch.equal(pipeline.transformer(state(), order), right), order
            assert torch.equal(pipeline.vae(state(), order), pipeline.vae(state(), order))
    assert held.device.used_bytes == 0


@pytest.mark.parametrize("error", [ValueError("planted"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("strategy", STREAMED)
def test_the_call_after_one_that_broke_off_is_exact(strategy: Any, error: BaseException) -> None:
    pipeline = toy_pipeline()
    right = pipeline.transformer(state())
    before = state_of(pipeline)
    with held_by(pipeline, plan_for(pipeline, strategy)) as held:
        for _ in range(3):
            with pytest.raises(type(error)):
                pipeline.transformer(state(), None, error)
            assert torch.equal(pipeline.transformer(state()), right)
        with pytest.raises(type(error)):
            pipeline.transformer(state(), None, error)
    assert held.device.used_bytes == 0
    assert state_of(pipeline) == before


@pytest.mark.parametrize("resident", [0, 4, 5])
def test_a_block_that_calls_another_is_exact_even_with_one_slot(resident: int) -> None:
    pipeline = toy_pipeline()
    pipeline.transformer.blocks[1].partner.append(pipeline.transformer.blocks[0])
    right = pipeline.transformer(state())
    plan = plan_for(pipeline, {**LAYERWISE, "resident_blocks": resident})
    single = plan.components["transformer"].model_copy(update={"slots": 1})
    plan = plan.model_copy(update={"components": {**plan.components, "transformer": single}})
    with held_by(pipeline, plan):
        assert [torch.equal(pipeline.transformer(state()), right) for _ in range(3)] == [True] * 3


def test_components_called_in_turn_within_their_calls_are_exact() -> None:
    pipeline = toy_pipeline()
    right = pipeline.vae(pipeline.transformer(state()))
    # Room for either component's stage, and not for both.
    plan = plan_for(pipeline, {**LAYERWISE, "resident_blocks": 3}, budget_bytes=6 * 1024)
    with held_by(pipeline, plan):
        for _ in range(3):
            assert torch.equal(pipeline.vae(pipeline.transformer(state())), right)


def test_calls_one_after_another_from_different_threads_work() -> None:
    pipeline = toy_pipeline()
    right = pipeline.transformer(state())
    made: list[torch.Tensor] = []

    def call() -> None:
        with torch.no_grad():
            made.append(pipeline.transformer(state()))

    with held_by(pipeline, plan_for(pipeline, LAYERWISE)):
        for _ in range(4):
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
    assert [torch.equal(each, right) for each in made] == [True] * 4


def test_training_is_refused() -> None:
    pipeline = toy_pipeline()
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)):
        pipeline.transformer.train()
        with torch.enable_grad(), pytest.raises(RoostError, match="transformer is in training mode"):
            pipeline.transformer(state())


def test_fifty_generations_do_not_drift() -> None:
    pipeline = toy_pipeline()
    right = pipeline.vae(pipeline.transformer(state()))
    plan = plan_for(pipeline, {**LAYERWISE, "resident_blocks": 2}, budget_bytes=8 * 1024)
    seen = set()
    before = threading.active_count()
    with held_by(pipeline, plan) as held:
        for generation in range(50):
            for _ in range(3):
                latents = pipeline.transformer(state())
            assert torch.equal(pipeline.vae(latents), right)
            held.runtime.end_call()
            copied, held.transfers.uploaded_bytes = held.transfers.uploaded_bytes, 0
            if generation >= 3:  # the order is learnt
                seen.add((held.device.used_bytes, copied, threading.active_count()))
        misses = [component.misses for component in held.runtime.components.values()]
    assert len(seen) == 1
    assert misses == [0, 0]
    assert threading.active_count() == before
    assert held.changes == []
