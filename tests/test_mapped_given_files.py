"""Masters of given files stay in them as far as they have the very bytes, and the plan knows how far that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import torch

import roost
import stored_weights
from given_files_matrix import FORMATS, denoiser, made_world
from given_files_runs import output_of, plan_of
from original_layouts import wan
from roost.errors import UsageError
from roost.facts.byte_ranges import byte_ranges
from roost.pipelines.formats.recipes import derive_recipe
from roost.plan import PlanDocument
from roost.planner.buffers import can_be_mapped
from roost.api.models.inspect import inspect_model
from roost.residency.weights.mapped_masters import MappedMaster
from single_file_worlds import World, stored


@pytest.fixture(scope="module")
def wan_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return made_world("wan2.1", tmp_path_factory.mktemp("wan"))


def in_memory(pipeline: Any, name: str) -> int:
    """Bytes of the component's masters that are not views of its file."""
    masters = [unit.master for unit in pipeline.roost.runtime.components[name].units.values() if unit.bytes]
    assert {type(each) for each in masters} == {MappedMaster}
    return sum(memory.nbytes for each in masters for _, memory in each.source._kept)


@pytest.mark.parametrize("form", ["GGUF Q8_0", "Comfy fp8 scaled, new"])
def test_mapped_masters_have_the_bits_of_resident_weights_and_take_the_host_memory_that_is_planned(
    form: str, wan_world: World, tmp_path: Path
) -> None:
    file, name = FORMATS[form](wan_world, "wan2.1", tmp_path), denoiser("wan2.1")
    found: dict[str, torch.Tensor] = {}
    plans: dict[str, PlanDocument] = {}
    for placed in ("resident", "layerwise-offload", "layerwise-offload,mapped=2"):
        plans[placed] = plan_of("wan2.1", wan_world, file, placed)
        pipeline = roost.load_pipeline(plans[placed])
        try:
            found[placed] = output_of(pipeline, "wan2.1")
            if "mapped" in placed:
                kept_bytes = in_memory(pipeline, name)
                assert pipeline.roost.changes == []
        finally:
            pipeline.roost.close()
    assert all(torch.equal(each, found["resident"]) for each in found.values())
    resident, in_ram, mapped = (each.budget.host_bytes for each in plans.values())
    assert mapped - resident == kept_bytes < 0.1 * (in_ram - resident)
