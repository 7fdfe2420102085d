"""Masters are in the tiers that the plan says, also of what moves as a whole, and cost host memory accordingly."""

from pathlib import Path
from typing import Any

import pytest

import roost
from engine_cases import digest_of
from live_pipelines import bare_digest
from plans import LAYERWISE, plan_for, plan_in
from roost.api.models.inspect import inspect_model
from roost.api.plans.preflight import check_host_memory
from roost.api.runs import ready
from roost.errors import NothingFits
from roost.facts.machine import PROCESS_BYTES, HostFacts, ram_leaving
from roost.plan import PlanDocument
from roost.plan.fields import Masters
from roost.planner.buffers import can_be_mapped
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.run.loader import load_held
from roost.residency.weights.host_masters import Master
from roost.residency.weights.mapped_masters import MappedMaster
from tiny_models import build

SMALL = {"gpu": "emulated", "vram": "3GiB", "headroom": "0", "size": "64x64", "frames": 9, "steps": 2}


@pytest.fixture(scope="module")
def ltx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("ltx", tmp_path_factory.mktemp("tiers") / "ltx")


@pytest.mark.parametrize("tier", ["pinned", "pageable", "mapped"])
@pytest.mark.parametrize("strategy", ["snapshot-offload", "component-offload", LAYERWISE], ids=str)
def test_blocks_and_the_rest_are_in_the_planned_tier_and_stay_in_it(ltx: Path, strategy: Any, tier: str) -> None:
    with EmulatedDevice(2**30) as device, load_held(plan_in(ltx, strategy, tier), ltx, device) as held:
        assert [digest_of(held, "ltx") for _ in range(2)] == [bare_digest("ltx")] * 2
        masters = [
            unit.master
            for component in held.runtime.components.values()
            for unit in component.units.values()
            if unit.bytes
        ]
        assert {each.tier for each in masters} == {tier}
        assert {type(each) for each in masters} == {MappedMaster if tier == "mapped" else Master}
        assert held.changes == []
        assert bool(held.transfers.device._ring) == (tier != "pinned")  # all others go through staging buffers
        assert device.pinned_bytes > 0  # masters, or those buffers
    assert device.pinned_bytes == 0


@pytest.mark.parametrize("prefix", ["", "model.of."], ids=["named alike", "renamed"])
def test_neither_other_names_nor_a_buffer_of_no_file_keep_a_unit_from_being_mapped(prefix: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from roost.residency.engine.component import HeldComponent
    from roost.residency.weights.mapped_masters import Checkpoint, stored_tensors
    from roost.residency.weights.transfers import Transfers
    from toy_pipelines import toy_pipeline

    pipeline = toy_pipeline()
    state = pipeline.transformer.state_dict()
    weights = {prefix + name: each for name, each in state.items() if "shift" not in name}
    save_file(weights, tmp_path / "model.safetensors")
    plan = plan_for(pipeline, LAYERWISE).components["transformer"]
    plan = plan.model_copy(update={"master": Masters(pinned=0, pageable=0, mapped=6)})
    with EmulatedDevice(2**20) as device:
        transfers = Transfers(device)
        before = {name: each.clone() for name, each in pipeline.transformer.state_dict().items()}
        component = HeldComponent(
            "transformer",
            pipeline.transformer,
            plan,
            transfers,
            Checkpoint(stored_tensors(tmp_path / "model.safetensors")),
        )
        assert {unit.master.tier for unit in component.units.values() if unit.master} == {"mapped"}
        component.acquire()
        component.running.enter("blocks.1")
        device.synchronize()
        block = pipeline.transformer.blocks[1]
        assert block.shift.equal(before["blocks.1.shift"])
        assert block.linear.weight.equal(before["blocks.1.linear.weight"])
        component.running.leave("blocks.1")
        component.restore()
        transfers.close()


@pytest.mark.parametrize("strategy", ["snapshot-offload", "component-offload"])
def test_a_typed_strategy_keeps_the_tier_that_the_search_found(ltx: Path, strategy: str) -> None:
    plan = roost.make_plan(
        ltx, **SMALL, ram=ram_leaving(16 * 1024, PROCESS_BYTES["emulated"]), dtype="float32", set=[f"all={strategy}"]
    )
    assert {each.master.mapped > 0 for each in plan.components.values()} == {True}
    assert plan.budget.host_bytes == 0


def rule_plan(ltx: Path, **options: Any) -> PlanDocument:
    return roost.make_plan(ltx, **SMALL, policy="rules", set=["all=layerwise-offload"], **options)


def test_the_rules_count_mapped_masters_as_no_host_memory(ltx: Path) -> None:
    plan = rule_plan(ltx, ram=ram_leaving(800 * 1024, PROCESS_BYTES["emulated"]), dtype="float32")
    assert sum(each.master.mapped for each in plan.components.values()) > 0
    assert 0 < plan.budget.host_bytes <= 800 * 1024
    assert plan.budget.host_deficit_bytes == 0


def test_the_rules_map_nothing_that_is_converted_as_it_loads(ltx: Path) -> None:
    plan = rule_plan(ltx, ram=ram_leaving(400 * 1024, PROCESS_BYTES["emulated"]), dtype="bfloat16")
    assert {each.master.mapped for each in plan.components.values()} == {0}
    assert plan.budget.host_deficit_bytes > 0


def test_a_plan_that_only_fits_with_mapped_masters_runs_without_force(
    ltx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = HostFacts(available_bytes=800 * 1024, pinnable_bytes=0, source="made up")
    monkeypatch.setattr(ready, "read_host", lambda **_: host)
    plan = rule_plan(ltx, ram=ram_leaving(800 * 1024, PROCESS_BYTES["emulated"]), dtype="float32")
    assert sum(each.load_bytes for each in plan.components.values()) > host.available_bytes
    assert ready.check_plan(plan).changes == ()


def test_a_plan_whose_masters_would_be_mapped_in_vain_needs_memory_for_them(ltx: Path) -> None:
    plan = rule_plan(ltx, ram=ram_leaving(800 * 1024, PROCESS_BYTES["emulated"]), dtype="float32")
    halved = {name: each.model_copy(update={"load_dtype": "float16"}) for name, each in plan.components.items()}
    host = HostFacts(available_bytes=800 * 1024, pinnable_bytes=0, source="made up")
    with pytest.raises(NothingFits, match=r"vae can't stay in its files: they are converted as they load"):
        check_host_memory(plan.model_copy(update={"components": halved}), roost.inspect_model(ltx), host)


def test_a_component_whose_library_renames_its_tensors_is_planned_and_held_mapped(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    flux = build("flux", tmp_path / "flux")
    file = flux / "text_encoder" / "model.safetensors"
    before = {name.removeprefix("text_model."): each for name, each in load_file(file).items()}
    save_file({f"text_model.{name}": each for name, each in before.items()}, file, metadata={"format": "pt"})
    assert can_be_mapped(inspect_model(flux, dtype="float32").component("text_encoder"))
    plan = plan_in(flux, "snapshot-offload", "mapped")
    with EmulatedDevice(2**30) as device, load_held(plan, flux, device) as held:
        assert not any("text_encoder." in change for change in held.changes)
        units = held.runtime.components["text_encoder"].units.values()
        assert {unit.master.tier for unit in units if unit.master and unit.bytes} == {"mapped"}
        assert digest_of(held, "flux") == bare_digest("flux")
