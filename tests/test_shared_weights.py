"""A component taken from a memory file is the very module that was put there, and nothing else is ever taken."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from engine_cases import with_pinned
from live_pipelines import held_by
from plans import plan_for
from roost.residency.attach import hold
from roost.residency.census import named_tensors
from roost.residency.emulated import EmulatedDevice
from roost.residency.fp8 import Fp8Linear, store_as_planned
from roost.residency.masters import ALIGNMENT
from roost.residency.shared_weights import NotShareable, SharedFile
from tiny_models import FAMILIES
from toy_pipelines import ToyModel, state, toy_pipeline


@pytest.fixture
def descriptor() -> Iterator[int]:
    descriptor = os.memfd_create("roost-test")
    yield descriptor
    os.close(descriptor)


def put(descriptor: int, module: torch.nn.Module) -> None:
    SharedFile(descriptor).pack(module).publish({"read_s": 1.5})


def taken(descriptor: int) -> Any:
    found = SharedFile(descriptor).take()
    assert found is not None
    return found[0]


def described(module: torch.nn.Module) -> dict[str, Any]:
    """All that can be told of a module's tensors; equal objects have equal numbers, so ties show."""
    numbers: dict[int, int] = {}
    return {
        name: (
            type(each),
            each.requires_grad,
            each.dtype,
            each.shape,
            each.stride(),
            each.reshape(-1).view(torch.uint8).tolist(),
            numbers.setdefault(id(each), len(numbers)),
        )
        for name, each in named_tensors(module)
    }


def test_every_component_of_many_families_comes_out_as_it_went_in() -> None:
    for family in ("wan2.2", "flux", "sdxl", "sd3", "qwen-image", "hunyuanvideo", "z-image"):
        # As loaded: what was called may hold hooks of its library, which no pickle takes.
        for name, module in FAMILIES[family].make().components.items():
            if not isinstance(module, torch.nn.Module):
                continue
            descriptor = os.memfd_create("roost-test")
            wanted, hidden = described(module), {key for key, _ in module.named_buffers()} - set(module.state_dict())
            put(descriptor, module)
            found = taken(descriptor)
            os.close(descriptor)
            assert described(found) == wanted, (family, name)
            assert described(module) == wanted, (family, name)
            assert {key for key, _ in found.named_buffers()} - set(found.state_dict()) == hidden
            assert [type(each) for each in found.modules()] == [type(each) for each in module.modules()]
            assert dict(found.config.items() if hasattr(found.config, "items") else found.config.to_dict()) == dict(
                module.config.items() if hasattr(module.config, "items") else module.config.to_dict()
            )
            assert all(each.data_ptr() % ALIGNMENT == 0 for _, each in named_tensors(found))


def test_two_processes_read_the_same_memory(descriptor: int) -> None:
    module = ToyModel(2)
    put(descriptor, module)
    other = taken(descriptor)
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] = 7.0
    assert next(other.parameters()).view(-1)[0] == 7.0


def test_weights_in_8_bits_keep_what_their_layers_need(descriptor: int) -> None:
    pipeline = toy_pipeline()
    plan = plan_for(pipeline).components["transformer"].model_copy(update={"storage": "float8_e4m3fn"})
    module = pipeline.transformer.to(torch.bfloat16)
    store_as_planned("transformer", module, plan)
    put(descriptor, module)
    found = taken(descriptor)
    layers = [each for each in found.modules() if isinstance(each, Fp8Linear)]
    assert layers
    assert [each.scale for each in layers] == [each.scale for each in module.modules() if isinstance(each, Fp8Linear)]
    assert all(each.weight.dtype == torch.float8_e4m3fn for each in layers)
    with torch.no_grad():
        assert torch.equal(found(state().bfloat16()), module(state().bfloat16()))


def test_a_file_whose_writer_died_half_way_is_empty_and_is_filled_by_the_next(descriptor: int) -> None:
    assert SharedFile(descriptor).take() is None
    SharedFile(descriptor).pack(ToyModel(2))  # all weights are there, and nobody said so
    assert SharedFile(descriptor).take() is None
    module = ToyModel(3)
    put(descriptor, module)
    assert described(taken(descriptor)) == described(module)


def test_overwritten_weights_are_never_taken_and_a_new_load_heals_the_file(descriptor: int) -> None:
    module = ToyModel(2)
    again, wanted = copy.deepcopy(module), described(module)
    put(descriptor, module)
    kept = taken(descriptor)
    with torch.no_grad():
        list(module.parameters())[-1].view(-1)[-1] += 1
    assert SharedFile(descriptor).take() is None
    put(descriptor, again)
    assert described(taken(descriptor)) == described(kept) == wanted


def test_a_module_that_can_not_be_written_down_is_refused_for_good_and_left_as_it_was(descriptor: int) -> None:
    module = ToyModel(2)
    module.rescale = lambda hidden: hidden * 2
    wanted, memory = described(module), [each.data_ptr() for each in module.parameters()]
    with pytest.raises(NotShareable, match="pickle"):
        SharedFile(descriptor).pack(module)
    assert described(module) == wanted
    assert [each.data_ptr() for each in module.parameters()] == memory
    with pytest.raises(NotShareable, match="pickle"):
        SharedFile(descriptor).take()


def test_weights_of_a_class_of_their_own_and_views_kept_beside_them_are_refused(descriptor: int) -> None:
    class Quantised(torch.nn.Parameter):
        pass

    module = ToyModel(2)
    module.own = Quantised(torch.ones(4))
    with pytest.raises(NotShareable, match="can't be moved"):
        SharedFile(descriptor).pack(module)
    module = ToyModel(2)
    module.beside = next(module.parameters()).detach()[1:]
    with pytest.raises(NotShareable, match="keeps a view"):
        SharedFile(descriptor).pack(module)


@pytest.mark.parametrize("strategy", ["resident", "component-offload", "snapshot-offload", "layerwise-offload"])
def test_shared_memory_is_the_master_itself_and_still_has_its_bytes_after_a_run(strategy: str, descriptor: int) -> None:
    pipeline = toy_pipeline()
    with torch.no_grad():
        wanted = pipeline.transformer(state())
    put(descriptor, pipeline.transformer)
    pipeline = toy_pipeline()
    pipeline.transformer = pipeline.components["transformer"] = taken(descriptor)
    memory = {name: each.data_ptr() for name, each in pipeline.transformer.named_parameters()}
    with held_by(pipeline, plan_for(pipeline, strategy)) as held, torch.no_grad():
        assert torch.equal(pipeline.transformer(state()), wanted)
        held.runtime.components["transformer"].release()
        if strategy != "resident":
            assert {name: each.data_ptr() for name, each in pipeline.transformer.named_parameters()} == memory
    assert described(taken(descriptor)), "no byte changed, or nothing could be taken"


class RefusesMemoryAt(EmulatedDevice):
    """Pins no memory that begins at one of these addresses."""

    refused: frozenset[int]

    def register(self, buffer: torch.Tensor) -> bool:
        return buffer.data_ptr() not in self.refused and super().register(buffer)


def test_where_shared_memory_can_not_be_pinned_a_trial_has_pinned_masters_of_its_own(descriptor: int) -> None:
    pipeline = toy_pipeline()
    with torch.no_grad():
        wanted = pipeline.transformer(state())
    put(descriptor, pipeline.transformer)
    pipeline.transformer = pipeline.components["transformer"] = taken(descriptor)
    pages = [each.untyped_storage().data_ptr() for each in pipeline.transformer.parameters()]
    plan = with_pinned(plan_for(pipeline, "layerwise-offload"))
    with RefusesMemoryAt(plan.budget.budget_bytes) as device:
        device.refused = frozenset(pages)
        with hold(pipeline, plan, device) as held, torch.no_grad():
            units = held.runtime.components["transformer"].units
            assert [units[f"blocks.{index}"].master.tier for index in range(6)] == ["pinned"] * 6
            assert torch.equal(pipeline.transformer(state()), wanted)
            assert held.changes == []
