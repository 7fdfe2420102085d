"""Trials of one bench read each component once, and nothing that they report tells that it was shared."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import roost
from planted_bench import gone
from roost.api.options import PlanOptions
from roost.api.planning import search_question
from roost.plan import ComponentPlan, PlanDocument
from roost.plan.fields import Masters
from roost.planner.search_plan import SearchQuestion
from roost.residency.calls import GenerationRequest
from roost.residency.loader import load_component
from roost.residency.plain import move_whole
from roost.residency.shared_weights import SharedFile
from roost.residency.trial import TrialFigures, TrialSetup, open_trial
from roost.tune.candidates import Field, list_candidates
from roost.tune.host_peak import HostPeak
from roost.tune.process import Message
from roost.tune.shared_files import SharedFiles
from roost.tune.shared_load import LoadCosts, SharedLoad
from roost.tune.trials import Trials, world_of
from tiny_models import build, default_call

MIB = 1024**2
DYING = Path(__file__).with_name("dying_child.py")
STRATEGIES = ("resident", "component-offload", "snapshot-offload", "layerwise-offload")


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wan2.2", tmp_path_factory.mktemp("shared") / "wan")


@pytest.fixture
def own_wan(wan: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(wan, tmp_path / "wan"))


@pytest.fixture
def files() -> Iterator[SharedFiles]:
    files = SharedFiles(allowed=True)
    yield files
    files.close()


def plan_of(model: Path, strategy: str, **options: object) -> PlanDocument:
    given = {"gpu": "emulated", "vram": "64MiB", "headroom": "0", "policy": "rules", "set": f"all={strategy}"}
    return roost.make_plan(model, **{**given, **options})


class Counting:
    """Loads components from their files, and counts."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str, plan: ComponentPlan, model_dir: Path) -> torch.nn.Module:
        self.names.append(name)
        return load_component(name, plan, model_dir)


def trial(
    model: Path, plan: PlanDocument, descriptors: Mapping[str, int], counting: Counting, *, plain: bool = False
) -> tuple[TrialFigures, SharedLoad]:
    """One generation, in this process, as a trial's own process would do it."""
    load = SharedLoad(counting, descriptors, HostPeak(), packs=True)
    setup = TrialSetup(
        plan=plan,
        model_dir=model,
        device_kind="emulated",
        budget_bytes=64 * MIB,
        load=load,
        owed_s=lambda: load.owed_s,
        place=move_whole if plain else None,
    )
    call = default_call("wan2.2")
    with open_trial(setup) as opened:
        return opened.measure(GenerationRequest(prompt=call.pop("prompt"), more=call)), load


def test_later_trials_of_every_strategy_need_no_files_and_give_the_same_bits(own_wan: Path, files: SharedFiles) -> None:
    plans = {strategy: plan_of(own_wan, strategy) for strategy in STRATEGIES}
    alone, counting = Counting(), Counting()
    wanted = {name: trial(own_wan, plan, {}, alone)[0].digest for name, plan in plans.items()}
    assert len(set(wanted.values())) == 1
    assert len(alone.names) == len(STRATEGIES) * len(plans["resident"].components)
    first, _ = trial(own_wan, plans["resident"], files.of(plans["resident"], 0), counting, plain=True)
    assert sorted(counting.names) == sorted(plans["resident"].components)
    for file in own_wan.rglob("*.safetensors"):
        file.unlink()
    for name, plan in plans.items():
        for _ in range(2):  # a strategy's own copies back must have left what was there
            figures, _ = trial(own_wan, plan, files.of(plan, 0), counting)
            assert figures.digest == first.digest == wanted[name], name
    assert len(counting.names) == len(plans["resident"].components)


@pytest.mark.parametrize(("packs", "load_s", "host_bytes"), [(True, 2000.0, 2 * 2**40), (False, 1000.0, 2**40)])
def test_a_later_trial_counts_what_the_first_load_took(
    wan: Path, files: SharedFiles, packs: bool, load_s: float, host_bytes: int
) -> None:
    plan = plan_of(wan, "layerwise-offload")
    descriptors, transformer = files.of(plan, 0), plan.components["transformer"]
    costs = LoadCosts(read_s=1000.0, packed_s=2000.0, read_bytes=2**40, packed_bytes=2 * 2**40)
    first = load_component("transformer", transformer, wan)
    SharedFile(descriptors["transformer"]).pack(first).publish(asdict(costs))
    host, counting = HostPeak(), Counting()
    load = SharedLoad(counting, descriptors, host, packs=packs)
    load("transformer", transformer, wan)
    assert load_s - 500 < load.owed_s <= load_s
    assert host.bytes is not None
    assert 0 < host.bytes - host_bytes < 2**39
    before_s = load.owed_s
    load("vae", plan.components["vae"], wan)
    assert counting.names == ["vae"]
    assert load.owed_s <= before_s, "its own load it paid for while it loaded"


def test_weights_in_8_bits_lie_beside_the_plain_ones(tmp_path: Path, files: SharedFiles) -> None:
    model = build("wan2.1", tmp_path / "wan")
    plain = plan_of(model, "layerwise-offload")
    transformer = plain.components["transformer"]
    fp8 = transformer.model_copy(update={"storage": "float8_e4m3fn"})
    stored = plain.model_copy(update={"components": {**plain.components, "transformer": fp8}})
    of_plain, of_stored = files.of(plain, 0), files.of(stored, 0)
    assert {name for name in of_plain if of_plain[name] != of_stored[name]} == {"transformer"}


def test_a_component_that_can_not_be_shared_is_loaded_for_each_trial(wan: Path, files: SharedFiles) -> None:
    class Odd(Counting):
        def __call__(self, name: str, plan: ComponentPlan, model_dir: Path) -> torch.nn.Module:
            module = super().__call__(name, plan, model_dir)
            if name == "vae":
                vars(module)["odd"] = lambda: None
            return module

    plan, odd = plan_of(wan, "layerwise-offload"), Odd()
    digests = []
    for _ in range(2):
        figures, load = trial(wan, plan, files.of(plan, 0), odd)
        digests.append(figures.digest)
        assert list(load.unshared) == ["vae"]
        assert "pickle" in load.unshared["vae"]
    assert digests[0] == digests[1]
    assert odd.names.count("vae") == 2
    assert odd.names.count("transformer") == 1


def test_a_trial_that_maps_its_masters_reads_the_files_itself(wan: Path, files: SharedFiles) -> None:
    plan, counting = plan_of(wan, "layerwise-offload"), Counting()
    transformer = plan.components["transformer"]
    mapped = transformer.model_copy(
        update={"master": Masters(pinned=0, pageable=0, mapped=transformer.stacks[0].count)}
    )
    reading = plan.model_copy(update={"components": {**plan.components, "transformer": mapped}})
    digests = {trial(wan, each, files.of(each, 0), counting)[0].digest for each in (plan, reading, reading)}
    assert len(digests) == 1
    assert {name: counting.names.count(name) for name in ("transformer", "vae")} == {"transformer": 3, "vae": 1}


def test_without_room_beside_a_trial_nothing_is_shared_any_more(wan: Path) -> None:
    plan = plan_of(wan, "resident")
    weights = sum(each.load_bytes for each in plan.components.values())
    left = 3 * weights
    files = SharedFiles(allowed=True, available_bytes=lambda: left)
    before = open_files()
    assert files.of(plan, 2 * weights)
    assert not files.given_up
    left = weights  # somebody else took memory, or the files were filled
    assert files.of(plan, 2 * weights) == {}
    assert files.given_up
    assert open_files() == before
    left = 9 * weights
    assert files.of(plan, 0) == {}, "what was given up stays so: it would be short again"


def test_where_the_system_has_no_memory_files_nothing_is_shared(wan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str) -> int:
        raise PermissionError(1, "not here")

    monkeypatch.setattr(os, "memfd_create", refused)
    files = SharedFiles(allowed=True)
    assert files.of(plan_of(wan, "resident"), 0) == {}
    monkeypatch.delattr(os, "memfd_create")
    assert SharedFiles(allowed=True).of(plan_of(wan, "resident"), 0) == {}


def open_files() -> list[str]:
    """This process's memory files, also those that are mapped."""
    gc.collect()  # components of trials in this process, which are used no more
    folder = Path("/proc/self/fd")
    names = [os.readlink(folder / each) for each in os.listdir(folder) if (folder / each).is_symlink()]
    return [each for each in names if "memfd:roost-" in each]


def asked_about(model: Path) -> SearchQuestion:
    return search_question(
        model, PlanOptions(gpu="emulated", vram="64MiB", headroom=0, size="64x64", frames=9, steps=2)
    )


def entrants_of(asked: SearchQuestion) -> Field:
    return list_candidates(asked, ("resident", "snapshot-offload"))


def test_processes_share_and_one_that_is_killed_while_it_fills_costs_the_next_only_a_load(own_wan: Path) -> None:
    asked = asked_about(own_wan)
    entrants = entrants_of(asked)
    marker = own_wan.parent / "died"
    with Trials(world_of(asked, entrants, own_wan, 2), (sys.executable, str(DYING), str(marker))) as trials:
        assert entrants.plain is not None
        dead = trials.run(entrants.plain)
        assert (dead.status, marker.read_text()) == ("crashed", "vae")
        second = trials.run(entrants.plain)
        assert second.status == "ok", second.reason
        assert trials.unshared == {}
        assert open_files()
        for file in own_wan.rglob("*.safetensors"):
            file.unlink()
        third = trials.run(entrants.racing[0])
        assert third.status == "ok", third.reason
        assert third.digest == second.digest
        assert third.host_peak_bytes is not None
    assert open_files() == []


def test_an_interrupt_leaves_no_memory_file(wan: Path, tmp_path: Path) -> None:
    asked = asked_about(wan)
    entrants = entrants_of(asked)
    pids: list[int] = []

    def interrupt(message: Message) -> None:
        if message.get("phase") == "loading transformer_2":
            pids.extend(child_pids())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Trials(world_of(asked, entrants, wan, 2)) as trials:
        trials.run(entrants.racing[0], on_message=interrupt)
    assert pids
    assert all(gone(pid) for pid in pids)
    assert open_files() == []


def child_pids() -> list[int]:
    return [int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]
