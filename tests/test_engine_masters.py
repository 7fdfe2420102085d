"""Masters in every tier are exact; what a tier or the memory at hand doesn't allow is said, or refused in one line."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch.distributed.fsdp import FSDPModule

from engine_cases import digest_of, held_on, with_pinned
from live_pipelines import bare_digest, held_by, live_pipeline, request_for
from plans import LAYERWISE, plan_for
from roost.errors import RoostError, UsageError
from roost.facts.model import StoredFile
from roost.pipelines.quiet import quiet_libraries
from roost.plan import PlanDocument
from roost.plan.fields import Masters
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import hold
from roost.residency.run.generate import generate
from roost.residency.run.loader import load_held
from roost.residency.weights.host_masters import Master
from tiny_models import build
from toy_pipelines import WIDTH, state, toy_pipeline


@pytest.fixture(scope="module")
def ltx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("ltx", tmp_path_factory.mktemp("mapped") / "ltx")


@pytest.fixture
def own_ltx(ltx: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ltx, tmp_path / "ltx"))


def mapped_plan(directory: Path) -> PlanDocument:
    """Every second master of the transformer in its file, the rest and all others pageable."""
    with quiet_libraries():
        pipeline = DiffusionPipeline.from_pretrained(directory)
    plan = plan_for(pipeline, LAYERWISE, components={"transformer": {"prefetch": 1}})
    transformer = plan.components["transformer"]
    masters = Masters(pinned=0, pageable=1, mapped=3)
    changed = transformer.model_copy(update={"master": masters})
    files = {
        path.relative_to(directory).as_posix(): StoredFile(bytes=path.stat().st_size, sha256="0" * 64)
        for path in directory.rglob("*.safetensors")
    }
    model = plan.model.model_copy(update={"files": files})
    return plan.model_copy(update={"components": {**plan.components, "transformer": changed}, "model": model})


def tiers(held: Any, component: str) -> list[str]:
    units = held.runtime.components[component].units
    return [units[name].master.tier for name in held.runtime.components[component].rungs.names]


def test_masters_that_stay_in_their_files_are_exact(ltx: Path) -> None:
    plan = mapped_plan(ltx)
    with EmulatedDevice(2**30) as device, load_held(plan, ltx, device) as held:
        assert tiers(held, "transformer") == ["pageable", "mapped", "mapped", "mapped"]
        wanted = {name: each.clone() for name, each in held.pipeline.transformer.state_dict().items()}
        assert [digest_of(held, "ltx") for _ in range(2)] == [bare_digest("ltx")] * 2
        saved = held.pipeline.transformer.state_dict()
        assert all(torch.equal(saved[name], each) for name, each in wanted.items())
        assert held.changes == []
    assert all(torch.equal(each, wanted[name]) for name, each in held.pipeline.transformer.state_dict().items())


def unlink(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


@pytest.mark.parametrize("harm", [unlink, cut_short])
def test_a_file_that_changes_under_its_masters_is_one_line_and_not_a_crash(harm: Any, own_ltx: Path) -> None:
    weights = own_ltx / "transformer" / "diffusion_pytorch_model.safetensors"
    plan = mapped_plan(own_ltx)
    with EmulatedDevice(2**30) as device, load_held(plan, own_ltx, device) as held:
        copy = Path(shutil.copy(weights, own_ltx / "kept"))
        harm(weights)
        for _ in range(2):
            with pytest.raises(RoostError, match=r"diffusion_pytorch_model\.safetensors") as caught:
                generate(held, request_for("ltx"))
            assert "\n" not in str(caught.value)
        del copy
    assert device.used_bytes == 0


def test_without_a_checkpoint_mapped_masters_are_pageable_and_that_is_said() -> None:
    pipeline = live_pipeline("ltx")
    plan = plan_for(pipeline, LAYERWISE)
    mapped = plan.components["transformer"].model_copy(update={"master": Masters(pinned=0, pageable=3, mapped=1)})
    plan = plan.model_copy(update={"components": {**plan.components, "transformer": mapped}})
    with held_by(pipeline, plan) as held:
        assert digest_of(held, "ltx") == bare_digest("ltx")
        assert [line.split(":")[0] for line in held.changes] == ["transformer.transformer_blocks.3"]


def test_streamed_masters_are_pinned_whole_pages_and_given_back() -> None:
    plan = with_pinned(plan_for(live_pipeline("flux"), {**LAYERWISE, "resident_blocks": 3}))
    with held_on("flux", plan) as (held, device):
        units = held.runtime.components["transformer"].units.values()
        masters = [unit.master for unit in units if isinstance(unit.master, Master) and unit.master.tier == "pinned"]
        assert len(masters) == 4
        assert device.pinned_bytes == held.transfers.pinned_bytes >= sum(each.bytes for each in masters)
        assert digest_of(held, "flux") == bare_digest("flux")
    assert device.pinned_bytes == 0


@pytest.mark.parametrize("refused_by", ["system", "budget"])
def test_a_refused_pin_is_pageable_and_said(refused_by: str) -> None:
    plan = with_pinned(plan_for(live_pipeline("ltx"), LAYERWISE))
    limits: dict[str, Any] = {"pinned_budget_bytes": 2**14} if refused_by == "system" else {}
    if refused_by == "budget":
        host = replace(plan.machine.host, pinnable_bytes=2**14)
        plan = plan.model_copy(update={"machine": plan.machine.model_copy(update={"host": host})})
    with held_on("ltx", plan, **limits) as (held, device):
        assert held.transfers.pinned_bytes <= 2**14
        assert digest_of(held, "ltx") == bare_digest("ltx")
        assert any("pageable instead of pinned" in line for line in held.changes)
    assert device.pinned_bytes == 0


def test_shared_and_overlapping_weights_are_exact() -> None:
    pipeline = toy_pipeline()
    blocks = pipeline.transformer.blocks
    blocks[1].linear.weight = blocks[4].linear.weight
    both = torch.randn(2 * WIDTH + 4)
    blocks[2].shift, blocks[3].shift = both[:WIDTH], both[4 : WIDTH + 4]
    blocks[0].shift = blocks[0].linear.bias.data
    with torch.no_grad():
        right = pipeline.transformer(state())
        with held_by(pipeline, plan_for(pipeline, LAYERWISE)):
            assert [torch.equal(pipeline.transformer(state()), right) for _ in range(2)] == [True] * 2
    assert blocks[1].linear.weight is blocks[4].linear.weight


def test_weights_changed_between_generations_come_in_anew_and_their_masters_are_pinned_in_turn() -> None:
    pipeline = toy_pipeline()
    plan = with_pinned(plan_for(pipeline, {**LAYERWISE, "resident_blocks": 2}))
    with (
        torch.no_grad(),
        EmulatedDevice(plan.budget.budget_bytes, count_activations=True) as device,  # which watches what is read
        hold(pipeline, plan, device) as held,
    ):
        pipeline.transformer(state())
        held.runtime.end_call()
        pinned = held.transfers.pinned_bytes, device.pinned_bytes
        for block in pipeline.transformer.blocks[:1]:  # a streamed one
            assert not block.linear.weight.isnan().any()
            block.linear.weight = torch.nn.Parameter(2 * block.linear.weight, requires_grad=False)
        made = pipeline.transformer(state())
        assert (held.transfers.pinned_bytes, device.pinned_bytes) == pinned
    with torch.no_grad():
        assert torch.equal(pipeline.transformer(state()), made)


def test_less_free_memory_between_generations_means_fewer_resident_blocks_and_more_brings_them_back() -> None:
    pipeline = toy_pipeline()
    with torch.no_grad(), EmulatedDevice(64 * 1024) as device:
        right = pipeline.transformer(state())
        plan = plan_for(pipeline, {**LAYERWISE, "resident_blocks": 4})
        with hold(pipeline, plan, device) as held:
            transformer = held.runtime.components["transformer"]
            assert torch.equal(pipeline.transformer(state()), right)
            assert transformer.rungs.resident_blocks == 4
            transformer.release()
            held.runtime.end_call()
            other = device.allocate(device.free_bytes - transformer.stage_bytes + 1)
            assert torch.equal(pipeline.transformer(state()), right)
            assert transformer.rungs.resident_blocks == 3
            assert "transformer: 3 resident blocks instead of 4" in held.changes[0]
            transformer.release()
            held.runtime.end_call()
            device.free(other)
            assert torch.equal(pipeline.transformer(state()), right)
            assert transformer.rungs.resident_blocks == 4


def test_stepping_down_gives_up_idle_components_then_blocks_then_slots() -> None:
    pipeline = toy_pipeline()
    plan = plan_for(pipeline, {**LAYERWISE, "resident_blocks": 4}, components={"vae": {"linger": True}})
    with torch.no_grad():
        right = pipeline.transformer(state())
        with held_by(pipeline, plan) as held:
            said = []
            pipeline.vae(state())
            pipeline.transformer(state())
            while (given_up := held.runtime.step_down()) is not None:
                said.append(given_up)
                assert torch.equal(pipeline.transformer(state()), right)
    assert said == [
        "vae: no longer kept on the device between its stages",
        "transformer: 3 resident blocks instead of 4",
        "transformer: 1 resident blocks instead of 3",
        "transformer: 0 resident blocks instead of 1",
        "transformer: 1 slots instead of 2",
    ]


def test_what_fsdp_manages_is_never_moved() -> None:
    pipeline = toy_pipeline()
    plan = plan_for(pipeline, LAYERWISE)
    block = pipeline.transformer.blocks[0]
    block.__class__ = type("FSDPToyBlock", (FSDPModule, type(block)), {})
    with pytest.raises(UsageError, match=r"'transformer' is managed by FSDP, .* with layerwise-offload"):
        held_by(pipeline, plan)
    plan = plan_for(pipeline, LAYERWISE, components={"transformer": {"strategy": "fsdp"}})
    addresses = [each.data_ptr() for each in pipeline.transformer.parameters()]
    with torch.no_grad(), held_by(pipeline, plan):
        pipeline.transformer(state())
        assert [each.data_ptr() for each in pipeline.transformer.parameters()] == addresses
