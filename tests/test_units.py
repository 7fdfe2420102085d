"""Tensors are grouped by what must move together, and their objects survive the moves."""

import torch
from roost.residency.accelerator import EmulatedAccelerator

from roost.residency.units import TRUNK, Unit, split_units


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8, bias=False)
        self.register_buffer("table", torch.rand(8), persistent=False)


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(8, 8, bias=False)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(3))


BLOCKS = ("blocks.0", "blocks.1", "blocks.2")


def objects_of(unit: Unit) -> list[torch.Tensor]:
    return [each for weight in unit.weights for each in weight.objects]


def holds(unit: Unit, tensor: torch.Tensor) -> bool:
    return any(each is tensor for each in objects_of(unit))


def test_blocks_hold_their_parameters_and_buffers_and_the_trunk_the_rest() -> None:
    model = Model()
    units = split_units(model, BLOCKS)
    assert {name: len(unit.weights) for name, unit in units.items()} == {TRUNK: 1, **dict.fromkeys(BLOCKS, 2)}
    assert holds(units["blocks.1"], model.blocks[1].table)


def test_a_parameter_that_two_blocks_share_belongs_to_the_trunk_once() -> None:
    model = Model()
    model.blocks[2].linear.weight = model.blocks[0].linear.weight
    units = split_units(model, BLOCKS)
    assert {name: len(unit.weights) for name, unit in units.items()} == {
        TRUNK: 2,
        "blocks.0": 1,
        "blocks.1": 2,
        "blocks.2": 1,
    }
    assert holds(units[TRUNK], model.blocks[0].linear.weight)


def test_two_parameters_over_the_same_memory_are_copied_once_and_both_bound() -> None:
    model = Model()
    model.blocks[1].linear.weight = torch.nn.Parameter(model.embed.weight.data)
    one, two = model.embed.weight, model.blocks[1].linear.weight
    values, host = one.detach().clone(), one.data_ptr()
    trunk = split_units(model, BLOCKS)[TRUNK]
    accelerator = EmulatedAccelerator(10_000)
    trunk.load(accelerator, keep_master=False)
    assert one.data_ptr() == two.data_ptr() != host
    assert accelerator.used_bytes == 256
    trunk.park(accelerator)
    assert one.data_ptr() == two.data_ptr()
    assert torch.equal(one, values)
    assert accelerator.used_bytes == 0


def test_a_kept_master_is_bound_again_and_a_dropped_one_is_copied_back() -> None:
    model = Model()
    trunk = split_units(model, BLOCKS)[TRUNK]
    accelerator = EmulatedAccelerator(10_000)
    before = model.embed.weight.data_ptr()
    model.embed.weight.data.zero_()
    for keep_master, value in ((True, 0.0), (False, 1.0)):
        trunk.load(accelerator, keep_master)
        with torch.no_grad():
            model.embed.weight.add_(1.0)
        trunk.park(accelerator)
        assert torch.equal(model.embed.weight, torch.full((8, 8), value))
        assert (model.embed.weight.data_ptr() == before) == keep_master
