"""Masters of given files stay in them as far as these have the very bytes, and the plan knows how far that is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import torch

import roost
import stored_weights
from given_files_matrix import FORMATS, made_world
from given_files_runs import output_of, plan_of
from plans import GIB
from roost.api.models.inspect import inspect_model
from roost.errors import UsageError
from roost.facts.byte_ranges import byte_ranges
from roost.plan.budget import HostTurn
from roost.plan.revision import revised
from roost.profiles.class_facts import load_class_facts
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.run.loader import Source, load_held
from roost.residency.run.sources.given_files import GivenFiles
from roost.residency.weights import mapped_masters
from roost.residency.weights.host_masters import AbsentMaster
from roost.residency.weights.mapped_masters import MappedMaster
from roost.residency.weights.unpinned_sources import FileBlock
from single_file_worlds import World, recipe_of, stored

RESIDENT, IN_MEMORY, MAPPED = "resident", "layerwise-offload", "layerwise-offload,mapped=4"


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Of four blocks, in a layout of which some targets are reordered, and others slices of joined tensors."""
    return made_world("sd3", tmp_path_factory.mktemp("sd3"))


@pytest.fixture
def kept_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What mapped masters have in memory, one entry for each."""
    found: list[int] = []

    class Block(FileBlock):
        def __init__(self, pieces: Any, size: int, kept: Any = ()) -> None:
            found.extend(each.nbytes for _, each in kept)
            super().__init__(pieces, size, kept)

    monkeypatch.setattr(mapped_masters, "FileBlock", Block)
    return found


def masters(held: Any) -> set[type]:
    return {type(unit.master) for unit in held.runtime.components["transformer"].units.values()}


@pytest.mark.parametrize("form", ["GGUF Q8_0", "Comfy fp8 scaled, new"])
def test_mapped_masters_have_the_bits_of_resident_weights_and_take_the_host_memory_that_is_planned(
    form: str, sd3: World, tmp_path: Path, kept_bytes: list[int]
) -> None:
    file = FORMATS[form](sd3, "sd3", tmp_path)
    plans = {placed: plan_of("sd3", sd3, file, placed) for placed in (RESIDENT, IN_MEMORY, MAPPED)}
    found = {}
    for placed in (RESIDENT, MAPPED):
        pipeline = roost.load_pipeline(plans[placed])
        try:
            found[placed] = output_of(pipeline, "sd3")
            assert pipeline.roost.changes == []
            assert (masters(pipeline.roost) == {MappedMaster}) is (placed == MAPPED)
        finally:
            pipeline.roost.close()
    assert torch.equal(found[RESIDENT], found[MAPPED])
    resident, in_memory, mapped = (each.budget.host_bytes for each in plans.values())
    assert 0 < sum(kept_bytes) == mapped - resident < 0.1 * (in_memory - resident)


@pytest.mark.parametrize("form", ["plain", "GGUF Q8_0", "Comfy fp8 scaled, new", "Comfy int8"])
def test_ranges_are_of_just_the_tensors_whose_bytes_lie_in_the_file_one_behind_another(
    form: str, sd3: World, tmp_path: Path
) -> None:
    path = FORMATS[form](sd3, "sd3", tmp_path)
    content, file = path.read_bytes(), stored(path)
    component = sd3.at("float32")
    recipe = recipe_of(component, file)
    ranges = {each.name: each for each in byte_ranges(file, recipe)}
    module = sd3.load(file)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        data = tensor.detach().as_subclass(torch.Tensor).contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        found = ranges.get(name.replace(".packed", ".weight"))
        if found is None:
            assert content.find(data) < 0, name
        else:
            assert content[found.offset : found.offset + found.bytes] == data, name
    whole = {(each.offset, each.bytes) for each in file.tensors.values()}
    assert any((each.offset, each.bytes) not in whole for each in ranges.values())  # a slice of a joined tensor
    reordered = [each.name for each in recipe.targets if each.strided is not None or len(each.pieces) > 1]
    assert reordered
    assert ranges.keys().isdisjoint(reordered)


def test_what_is_cast_as_it_loads_or_lies_unaligned_has_no_range(sd3: World, tmp_path: Path) -> None:
    path = stored_weights.write_safetensors(tmp_path / "t.safetensors", sd3.original)
    file = stored(path)
    assert not list(byte_ranges(file, recipe_of(sd3.at("bfloat16"), file)))
    shifted = {name: replace(each, offset=each.offset + 1) for name, each in file.tensors.items()}
    assert not list(byte_ranges(replace(file, tensors=shifted), recipe_of(sd3.at("float32"), file)))
    with pytest.raises(UsageError, match="masters of component 'transformer' can't be mapped"):
        plan_of("sd3", sd3, path, MAPPED, dtype="bfloat16")


def test_masters_that_come_late_are_mapped_in_their_turn(sd3: World, tmp_path: Path, kept_bytes: list[int]) -> None:
    file = FORMATS["GGUF Q8_0"](sd3, "sd3", tmp_path)
    plan = plan_of("sd3", sd3, file, MAPPED)
    masters_of = {"text_encoder": dict[str, int](), "transformer": {"transformer": plan.budget.host_bytes}}
    turns = [HostTurn(component=name, masters=each, host_bytes=sum(each.values())) for name, each in masters_of.items()]
    plan = revised(plan, budget=revised(plan.budget, host_turns=turns))
    files = inspect_model(sd3.folder, dtype="float32", files={"transformer": file}).given
    given = GivenFiles(files=files, class_facts=load_class_facts())
    source = Source(load=given.load, class_facts=given.class_facts, given=given)
    with EmulatedDevice(4 * GIB) as device, torch.no_grad():
        held = load_held(plan, sd3.folder, device, source=source)
        assert AbsentMaster in masters(held)
        output_of(held.pipeline, "sd3")
        assert masters(held) == {MappedMaster}
        assert held.changes == []
        held.abandon()
