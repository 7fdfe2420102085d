"""Between calls a held component's parameters are the truth: read, edited in place, and kept when the plan is off."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from live_pipelines import STRATEGIES, held_by, own_pipeline, request_for
from plans import plan_for
from roost.residency.run.generate import generate
from toy_pipelines import state, toy_pipeline

Edit = Callable[[torch.nn.Module, list[str]], None]

PLACES: dict[str, list[str]] = {
    "trunk": ["embed.weight"],
    "first block": ["blocks.0.linear.weight"],
    "middle block": ["blocks.3.linear.bias"],
    "last block": ["blocks.5.linear.weight"],
    "a buffer": ["blocks.2.shift"],
    "several": ["embed.bias", "blocks.0.linear.weight", "blocks.1.linear.weight", "blocks.5.shift"],
}


def tensors(module: torch.nn.Module, names: list[str]) -> list[torch.Tensor]:
    named = dict([*module.named_parameters(), *module.named_buffers()])
    return [named[name] for name in names]


def in_place(module: torch.nn.Module, names: list[str]) -> None:
    with torch.no_grad():
        for each in tensors(module, names):
            each.mul_(1.5)


def through_data(module: torch.nn.Module, names: list[str]) -> None:
    for each in tensors(module, names):
        each.data.mul_(1.5)


def one_element(module: torch.nn.Module, names: list[str]) -> None:
    with torch.no_grad():
        for each in tensors(module, names):
            each[..., 0] = 0.25


def by_assigned_data(module: torch.nn.Module, names: list[str]) -> None:
    for each in tensors(module, names):
        each.data = each.data * 1.5


def through_state_dict(module: torch.nn.Module, names: list[str]) -> None:
    kept = module.state_dict()
    for name in names:
        kept[name].copy_(kept[name] * 1.5)


def by_load_state_dict(module: torch.nn.Module, names: list[str]) -> None:
    changed = {name: each.clone() for name, each in module.state_dict().items()}
    for name in names:
        changed[name] *= 1.5
    module.load_state_dict(changed)


def through_numpy(module: torch.nn.Module, names: list[str]) -> None:
    for each in tensors(module, names):
        each.detach().numpy()[...] *= 1.5


def of_several_at_once(module: torch.nn.Module, names: list[str]) -> None:
    with torch.no_grad():
        torch._foreach_mul_(tensors(module, names), 1.5)


def in_inference_mode(module: torch.nn.Module, names: list[str]) -> None:
    with torch.inference_mode():
        for each in tensors(module, names):
            each.mul_(1.5)


EDITS: list[Edit] = [
    in_place, through_data, one_element, by_assigned_data, through_state_dict, by_load_state_dict, through_numpy,
    of_several_at_once, in_inference_mode,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


def play(pipeline: Any, edit: Edit, places: list[str], generation_ends: Callable[[], None]) -> list[torch.Tensor]:
    """Calls with edits before the first, between all, and several between two."""
    edit(pipeline.transformer, places)
    made = []
    for edits in (1, 1, 2, 0):
        for _ in range(2):  # two calls without a word between them, as steps are
            made.append(pipeline.vae(pipeline.transformer(state())))
        generation_ends()
        for _ in range(edits):
            edit(pipeline.transformer, places)
    return made


def check(strategy: str, place: str, edit: Edit, ends: bool) -> None:
    plain, pipeline = toy_pipeline(), toy_pipeline()
    right = play(plain, edit, PLACES[place], lambda: None)
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        made = play(pipeline, edit, PLACES[place], held.runtime.end_call if ends else lambda: None)
        same = [torch.equal(*pair) for pair in zip(made, right, strict=True)]
        assert all(same), (edit.__name__, place, ends, same)
        edit(pipeline.transformer, PLACES[place])  # after the last call
    edit(plain.transformer, PLACES[place])
    for name, each in plain.transformer.state_dict().items():
        assert torch.equal(pipeline.transformer.state_dict()[name], each), (edit.__name__, place, ends, name)


@pytest.mark.dealt(3)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_edits_in_place_are_used_by_the_next_call_and_kept_when_the_plan_is_off(strategy: str) -> None:
    """Every way of editing, and every place; a pipeline of one's own may never say that its call is over."""
    for number, edit in enumerate(EDITS):
        check(strategy, "several", edit, ends=number % 2 == 0)
    for number, place in enumerate(PLACES):
        check(strategy, place, through_data, ends=number % 2 == 0)


@pytest.mark.slow
@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_edit_of_every_place(strategy: str, place: str, ends: bool) -> None:
    for edit in EDITS:
        check(strategy, place, edit, ends)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_memory_that_was_lent_once_may_be_edited_at_any_later_time(strategy: str) -> None:
    plain, pipeline = toy_pipeline(), toy_pipeline()

    def made_by(each: Any, generation_ends: Callable[[], None]) -> list[torch.Tensor]:
        lent = [each.transformer.embed.weight.data, each.transformer.blocks[4].linear.weight.detach()]
        made = []
        for _ in range(3):
            made.append(each.transformer(state()))
            generation_ends()
            for memory in lent:
                memory.mul_(1.25)
        return made

    right = made_by(plain, lambda: None)
    if strategy == "resident":
        pytest.skip("what was on the host before the plan is not where resident weights are read")
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        assert all(map(torch.equal, made_by(pipeline, held.runtime.end_call), right))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_read_between_calls_and_between_steps_are_right(strategy: str) -> None:
    pipeline = toy_pipeline()
    right = {name: each.clone() for name, each in pipeline.transformer.named_parameters()}
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        for generation in range(2):
            for _ in range(2):
                pipeline.vae(pipeline.transformer(state()))
                for name, each in pipeline.transformer.named_parameters():
                    assert torch.equal(each, right[name]), (generation, name)
                    assert not each.norm().isnan()
            held.runtime.end_call()


def test_reading_alone_brings_nothing_in_anew() -> None:
    pipeline = toy_pipeline()
    with held_by(pipeline, plan_for(pipeline, {"strategy": "snapshot-offload", "linger": True})) as held:
        pipeline.transformer(state())
        uploaded = held.transfers.uploaded_bytes
        for each in pipeline.transformer.parameters():
            assert each.dtype == torch.float32
            assert each.sum().isfinite()
            assert each.to(torch.float64).isfinite().all()
            assert repr(each)
        pipeline.transformer(state())
        assert held.transfers.uploaded_bytes == uploaded
        pipeline.transformer.embed.weight.mul_(2)
        pipeline.transformer(state())
        assert held.transfers.uploaded_bytes > uploaded


@pytest.mark.dealt(3)
@pytest.mark.parametrize(
    ("family", "strategy"),
    [
        ("flux", "snapshot-offload"),
        ("wan2.2", "layerwise-offload"),
        ("sdxl", "layerwise-offload, half resident"),  # its VAE changes its dtype and back
    ],
)
def test_edits_between_generations_of_real_pipelines_give_the_bits_of_the_pipeline_alone(
    family: str, strategy: str
) -> None:
    plain, pipeline = own_pipeline(family), own_pipeline(family)

    def edit(each: Any) -> None:
        for component in each.components.values():
            if isinstance(component, torch.nn.Module):
                found = [tensor for tensor in component.parameters() if tensor.ndim > 1]
                for tensor in (found[0], found[len(found) // 2], found[-1]):
                    tensor.data.mul_(1.25)

    with held_by(plain, plan_for(plain, "resident")) as alone:
        right = []
        for _ in range(3):
            right.append(generate(alone, request_for(family)).digest)
            edit(plain)
    assert len(set(right)) == 3
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        made = []
        for _ in range(3):
            made.append(generate(held, request_for(family)).digest)
            edit(pipeline)
    assert made == right
    for name, component in plain.components.items():
        if isinstance(component, torch.nn.Module):
            kept = pipeline.components[name].state_dict()
            assert all(torch.equal(kept[key], each) for key, each in component.state_dict().items())
