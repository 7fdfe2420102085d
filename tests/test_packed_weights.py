"""Weights that a quantised format packs are streamed as they are, with the bits that they have without a plan."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from engine_cases import with_pinned
from live_pipelines import STRATEGIES, held_by
from packed_models import PACKED, WAYS, packed_pipeline, state
from plans import GIB, LAYERWISE, plan_for
from roost.pipelines.formats.packed_tensors import named_parts, parts_of
from roost.residency.hold.attach import Held
from roost.residency.weights.census import named_tensors
from roost.residency.weights.host_masters import aligned_bytes


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


@contextmanager
def held(pipeline: Any, strategy: Any, *, pinned: bool = False, budget_bytes: int = GIB) -> Iterator[Held]:
    plan = plan_for(pipeline, strategy, budget_bytes=budget_bytes)
    with held_by(pipeline, with_pinned(plan) if pinned else plan) as found:
        yield found


def tensors_of(pipeline: Any) -> list[Any]:
    """All that a user can see of the weights: objects, classes, and the bytes of every part."""
    found: list[Any] = []
    for module in pipeline.components.values():
        found += [(name, id(each), type(each), each.device) for name, each in named_tensors(module)]
        found += [(name, each.flatten().view(torch.uint8).tolist()) for name, each in named_parts(module)]
    return found


def generation(pipeline: Any) -> torch.Tensor:
    result: torch.Tensor = pipeline.vae(pipeline.transformer(pipeline.transformer(state())))
    return result


@pytest.mark.dealt(4)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", PACKED)
def test_bits_are_those_without_a_plan_and_everything_is_as_before_afterwards(kind: str, strategy: str) -> None:
    pipeline = packed_pipeline(kind)
    right, before = generation(pipeline), tensors_of(pipeline)
    with held(pipeline, STRATEGIES[strategy]) as found:
        for _ in range(2):
            assert torch.equal(generation(pipeline), right)
            found.runtime.end_call()
        assert not found.changes
        assert found.plan.components["transformer"].strategy == (
            STRATEGIES[strategy]["strategy"] if isinstance(STRATEGIES[strategy], dict) else strategy
        )
    assert tensors_of(pipeline) == before
    assert torch.equal(generation(pipeline), right)


@pytest.mark.parametrize("kind", WAYS)
def test_a_streamed_block_brings_its_parts_and_no_more(kind: str) -> None:
    pipeline = packed_pipeline(kind)
    with held(pipeline, {**LAYERWISE, "prefetch": 2}, pinned=True) as found:
        for _ in range(2):
            pipeline.transformer(state())
        stored = sum(aligned_bytes(each) for _, each in named_parts(pipeline.transformer))
        component = found.runtime.components["transformer"]
        assert component.trunk_bytes + sum(component.block_bytes) == stored
        assert found.transfers.pinned_bytes > 0


@pytest.mark.parametrize("kind", WAYS)
def test_what_stands_for_a_weight_in_its_forward_is_of_its_class_and_knows_what_it_knows(kind: str) -> None:
    pipeline = packed_pipeline(kind)
    layer = pipeline.transformer.blocks[2].first
    own = dict(layer.named_parameters())
    seen: list[dict[str, torch.Tensor]] = []
    handle = layer.register_forward_pre_hook(lambda *_: seen.append(dict(layer.named_parameters())))
    with held(pipeline, LAYERWISE):
        pipeline.transformer(state())
        for name, each in own.items():
            assert layer.get_parameter(name) is each
            assert isinstance(each, type(seen[0][name]))
    handle.remove()
    for name, each in own.items():
        during = seen[0][name]
        assert during is not each
        assert type(during) is type(each)
        assert vars(during).keys() == vars(each).keys()
        assert [(suffix, part.shape, part.dtype) for suffix, part in parts_of(during)] == [
            (suffix, part.shape, part.dtype) for suffix, part in parts_of(each)
        ]


@pytest.mark.parametrize("strategy", ["snapshot-offload", "layerwise-offload"])
@pytest.mark.parametrize("kind", WAYS)
def test_after_an_exception_inside_a_block_the_next_generation_is_exact(kind: str, strategy: str) -> None:
    pipeline = packed_pipeline(kind)
    right, before = generation(pipeline), tensors_of(pipeline)
    with held(pipeline, strategy):
        pipeline.transformer.fails_at = 2
        with pytest.raises(RuntimeError, match="planted"):
            generation(pipeline)
        pipeline.transformer.fails_at = None
        assert torch.equal(generation(pipeline), right)
    assert tensors_of(pipeline) == before


def first_part(layer: torch.nn.Module) -> torch.Tensor:
    """The largest memory of a layer's weight."""
    return max((part for _, part in named_parts(layer)), key=lambda part: part.nbytes)


EDITS: dict[str, Callable[[torch.nn.Module], object]] = {
    "in place": lambda layer: first_part(layer).bitwise_xor_(1),
    "by its data": lambda layer: setattr(first_part(layer), "data", first_part(layer).bitwise_xor(1)),
    "through a view": lambda layer: first_part(layer).view(-1)[:9].fill_(3),
    "by the layer's state": lambda layer: [each.view(torch.uint8).bitwise_xor_(1) for each in _plain_state(layer)],
}


def _plain_state(layer: torch.nn.Module) -> list[torch.Tensor]:
    return [each for key, each in layer.state_dict().items() if key == "bias"]


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("strategy", ["component-offload", "snapshot-offload", "layerwise-offload"])
@pytest.mark.parametrize("kind", WAYS)
def test_what_a_user_writes_between_generations_is_what_the_next_one_uses(kind: str, strategy: str, edit: str) -> None:
    pipeline, plain = packed_pipeline(kind), packed_pipeline(kind)
    with held(pipeline, strategy) as found:
        before = generation(pipeline)
        found.runtime.end_call()
        for each in (pipeline, plain):
            EDITS[edit](each.transformer.blocks[3].first)
        right = generation(plain)
        assert not torch.equal(right, before)
        assert torch.equal(generation(pipeline), right)
    assert torch.equal(generation(pipeline), right)


@pytest.mark.parametrize("strategy", ["component-offload", "snapshot-offload", "layerwise-offload"])
@pytest.mark.parametrize("kind", WAYS)
def test_a_layer_that_a_user_replaces_between_generations_is_moved_in_its_turn(kind: str, strategy: str) -> None:
    pipeline, plain = packed_pipeline(kind), packed_pipeline(kind)
    with held(pipeline, strategy) as found:
        generation(pipeline)
        found.runtime.end_call()
        for each in (pipeline, plain):
            each.transformer.blocks[1].second = each.transformer.blocks[4].second
        right = generation(plain)
        assert torch.equal(generation(pipeline), right)
        assert torch.equal(generation(pipeline), right)


@pytest.mark.parametrize("kind", WAYS)
def test_what_is_read_of_weights_between_and_during_calls_is_right(kind: str) -> None:
    pipeline, plain = packed_pipeline(kind), packed_pipeline(kind)
    layer, other = pipeline.transformer.blocks[3].first, plain.transformer.blocks[3].first
    during: list[torch.Tensor] = []
    with held(pipeline, LAYERWISE):
        handle = pipeline.transformer.blocks[0].register_forward_hook(lambda *_: during.append(layer(state())))
        generation(pipeline)
        handle.remove()
        assert torch.equal(layer(state()), other(state()))  # brought in by itself
        assert all(torch.equal(each, other(state())) for each in during)
        ours, theirs = pipeline.transformer.state_dict(), plain.transformer.state_dict()
        assert ours.keys() == theirs.keys()
        assert [type(each) for each in ours.values()] == [type(each) for each in theirs.values()]
        for name, each in ours.items():
            parts = zip(parts_of(each), parts_of(theirs[name]), strict=True)
            assert all(torch.equal(mine.view(torch.uint8), its.view(torch.uint8)) for (_, mine), (_, its) in parts)


@pytest.mark.parametrize("kind", WAYS)
def test_a_copy_of_a_held_weight_is_one_that_computes(kind: str) -> None:
    pipeline = packed_pipeline(kind)
    layer = pipeline.transformer.blocks[3].first
    right = layer(state())
    with held(pipeline, LAYERWISE):
        generation(pipeline)
        copies = {name: copy.deepcopy(each) for name, each in layer.named_parameters()}
    for name, each in copies.items():
        assert type(each) is type(layer.get_parameter(name))
        setattr(layer, name, each)
    assert torch.equal(layer(state()), right)


@pytest.mark.parametrize("strategy", ["resident", "snapshot-offload", "layerwise-offload"])
@pytest.mark.parametrize("kind", WAYS)
def test_where_memory_is_short_less_stays_and_the_bits_are_the_same(kind: str, strategy: str) -> None:
    pipeline = packed_pipeline(kind, blocks=24)
    right = generation(pipeline)
    largest = max(_unit_bytes(pipeline.transformer.blocks[0]), _unit_bytes(pipeline.vae.blocks[0]))
    budget_bytes = _unit_bytes(pipeline.vae.embed) + _unit_bytes(pipeline.vae.blocks) + 2 * largest
    asked = {**LAYERWISE, "resident_blocks": 1.0} if strategy == "layerwise-offload" else strategy
    with held(pipeline, asked, budget_bytes=budget_bytes) as found:
        assert torch.equal(generation(pipeline), right)
        assert torch.equal(generation(pipeline), right)
        assert any("transformer" in each for each in found.changes)
        assert found.device.peak_bytes <= budget_bytes
    assert torch.equal(generation(pipeline), right)


def _unit_bytes(module: torch.nn.Module) -> int:
    return sum(aligned_bytes(each) for _, each in named_parts(module))
