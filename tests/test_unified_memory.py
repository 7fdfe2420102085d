"""A GPU that has the host's memory: one pool, counted once on both sides, and plans that say so."""

from __future__ import annotations

from dataclasses import replace

import pynvml
import pytest

from fake_nvml import FakeCard, FakeNvml, Fields
from roost.api.machine import find_machine
from roost.cli.app import run
from roost.facts.machine import Machine
from roost.facts.request import Choices
from roost.plan import PlanDocument
from roost.planner.by_rules import plan_by_rules
from roost.planner.rules.selectors import parse_set
from roost.planner.search.shortfall import split_pool
from roost.planner.search.solver import Limits
from roost.probes.machine.gpu import read_gpus
from roost.probes.machine.host import read_unified
from roost.units import GiB
from searched_plans import PARTS, searched
from worlds import inventory, machine, question

pytestmark = pytest.mark.long


def unified(free_gib: float, pool_gib: float) -> Machine:
    found = machine(free_gib, ram_gib=pool_gib)
    return replace(found, gpu=replace(found.gpu, unified=True))


# Pickled, so no host copy can stay in the files.
UNMAPPED = tuple(replace(each, tensors=None) for each in PARTS)


def asked(free_gib: float, pool_gib: float) -> PlanDocument:
    made = question(inventory(*UNMAPPED), unified(free_gib, pool_gib))
    return searched(question=replace(made, workload=replace(made.workload, frames=None, steps=40)))


@pytest.mark.parametrize("name", ["gb10", "DGX Spark"])
def test_a_unified_card_by_name_has_one_pool_that_is_not_this_machines(name: str) -> None:
    found = find_machine(name)
    assert found.gpu.unified
    assert found.host.available_bytes == found.gpu.free_bytes
    assert found.gpu.free_bytes + found.host.reserved_bytes == found.gpu.total_bytes
    assert not find_machine("rtx-4090").gpu.unified


def test_what_was_typed_of_a_unified_memory_is_kept() -> None:
    found = find_machine("gb10", vram="40GiB", ram="100GiB")
    assert (found.gpu.free_bytes, found.host.available_bytes) == (40 * GiB, 90 * GiB)  # 8 GiB and 2 GiB less
    assert find_machine("gb10", ram="50GiB").gpu.free_bytes == 44 * GiB


def test_all_stays_where_one_pool_holds_it() -> None:
    plan = asked(60, 60)
    assert plan.fits
    assert {each.strategy for each in plan.components.values()} == {"resident"}
    assert plan.budget.host_bytes == 0
    assert any("shares its memory with the host" in each for each in plan.warnings)


@pytest.mark.parametrize("free_gib", [14, 20, 30])
def test_device_peak_and_host_copies_stay_within_the_pool(free_gib: float) -> None:
    plan = asked(free_gib, 64)
    assert plan.fits
    assert plan.predicted is not None
    assert plan.predicted.peak_bytes.mid + plan.budget.host_bytes <= 63 * GiB


def test_offloading_makes_no_room_in_a_pool_that_is_too_small() -> None:
    plan = asked(41, 41)
    assert not plan.fits
    assert "shared memory is" in plan.budget.verdict
    assert searched(41, parts=UNMAPPED).fits, "with host memory of its own it fits"


def test_a_pool_that_is_too_small_for_both_sides_is_short_itself_whatever_was_typed_for_the_device() -> None:
    plan = asked(20, 30)
    assert not plan.fits
    assert "shared memory is" in plan.budget.verdict


def test_a_pool_is_split_from_all_of_it_on_the_device_to_a_sixteenth() -> None:
    splits = list(split_pool(Limits(vram_bytes=48, host_bytes=40, pinned_bytes=20), pool_bytes=64))
    assert [each.vram_bytes for each in splits] == [48 - 3 * step for step in range(16)]
    assert all(each.host_bytes == min(40, 64 - each.vram_bytes) for each in splits)
    assert all(each.pinned_bytes == min(20, each.host_bytes) for each in splits)


def test_what_was_typed_of_the_pool_for_the_device_may_be_too_small_by_itself() -> None:
    plan = asked(0.5, 64)
    assert not plan.fits
    assert "VRAM is" in plan.budget.verdict
    assert plan.budget.deficit_bytes > 0


def test_rules_keep_their_table_and_count_the_pool_once() -> None:
    def ruled(pool_gib: float, *sets: str) -> PlanDocument:
        choices = Choices(sets=tuple(map(parse_set, sets)))
        return plan_by_rules(question(inventory(*PARTS), unified(40, pool_gib), choices))

    def apart(plan: PlanDocument) -> dict[str, str]:
        return {name: each.strategy for name, each in plan.components.items()}

    moved = ("all=snapshot-offload",)
    assert apart(ruled(100)) == apart(plan_by_rules(question(inventory(*PARTS), machine(40, ram_gib=100))))
    assert ruled(100, *moved).fits
    short = ruled(60, *moved)
    assert not short.fits
    assert short.budget.host_deficit_bytes == short.budget.host_bytes + short.budget.peak_weights_bytes - 59 * GiB
    assert "lie in the same memory" in short.budget.verdict


@pytest.mark.parametrize("memory", [pynvml.NVMLError_NotSupported(), Fields(total=0, free=0, used=0, reserved=0)])
def test_a_present_unified_card_has_the_hosts_memory(memory: object) -> None:
    card = FakeCard(Name="NVIDIA GB10", memory_v2=memory, memory_v1=pynvml.NVMLError_NotSupported())
    found = read_gpus(1, 0, FakeNvml(card), {}, shares_memory=lambda name: name == "NVIDIA GB10")
    facts = found.gpus[0].facts
    assert facts.unified
    assert facts.total_bytes == read_unified()[0]
    assert 0 < facts.free_bytes <= facts.total_bytes


@pytest.mark.parametrize(("vram", "code"), [("89GiB", 0), ("2GiB", 3)])
def test_the_screen_says_that_memory_is_shared_whether_a_plan_fits_or_not(
    vram: str, code: int, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where no dry run has left a trace
    words = ["plan", "qwen-image", "--gpu", "gb10", "--vram", vram, "--ram", "100GiB", "--policy", "rules"]
    assert run(words) == code
    assert "one pool" in capsys.readouterr().out
