"""Trials of one bench read each component once, and nothing that they report tells that it was shared."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import roost
from roost.pipelines import random_weights
from roost.pipelines.random_weights import random_component
from roost.plan import ComponentPlan, PlanDocument
from roost.plan.fields import Masters
from roost.probes.host import forget_peak_rss, private_bytes, resident_bytes
from roost.residency.calls import GenerationRequest
from roost.residency.loader import load_component
from roost.residency.plain import move_whole
from roost.residency.shared_weights import SharedFile
from roost.residency.trial import TrialFigures, TrialSetup, open_trial
from roost.tune.child import component_load
from roost.tune.host_peak import HostPeak
from roost.tune.shared_files import SharedFiles
from roost.tune.shared_load import LoadCosts, SharedLoad
from tiny_models import build, default_call

MIB = 1024**2
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
    """One generation with what is shared."""
    load = SharedLoad(counting, descriptors, HostPeak(), packs=True)
    return trial_by(load, model, plan, plain=plain), load


def trial_by(load: SharedLoad, model: Path, plan: PlanDocument, *, plain: bool = False) -> TrialFigures:
    """One generation, in this process, as a trial's own process would do it."""
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
        return opened.measure(GenerationRequest(prompt=call.pop("prompt"), more=call))


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


def test_a_model_of_random_weights_is_made_once(
    wan: Path, tmp_path: Path, files: SharedFiles, monkeypatch: Any
) -> None:
    """By its name a model has only configs."""
    plan = plan_of(wan, "layerwise-offload")
    configs = shutil.copytree(wan, tmp_path / "configs", ignore=shutil.ignore_patterns("*.safetensors"))
    request = {"device_kind": "emulated", "random_weights": True, "peer": None, "shared": files.of(plan, 0)}
    made: list[str] = []

    def counted(name: str, *args: Any, **options: Any) -> torch.nn.Module:
        made.append(name)
        return random_component(name, *args, **options)

    monkeypatch.setattr(random_weights, "random_component", counted)
    digests = []
    for shared in (request["shared"], request["shared"], {}):
        load = component_load({**request, "shared": shared}, HostPeak())
        digests.append(trial_by(load, configs, plan).digest)
    assert len(set(digests)) == 1
    assert made == [*plan.load_order, *plan.load_order], "once for all who share, and once more alone"


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


def test_shared_pages_that_a_trial_reads_are_its_host_memory() -> None:
    """Towards a typed --ram, and among what is resident."""
    descriptor = os.memfd_create("roost-test")
    size = 64 * MIB
    os.ftruncate(descriptor, size)
    for start in range(0, size, MIB):
        os.pwrite(descriptor, b"x" * MIB, start)
    private, resident = private_bytes() or 0, resident_bytes() or 0
    pages = torch.frombuffer(mmap.mmap(descriptor, size), dtype=torch.uint8)
    os.close(descriptor)
    assert (private_bytes() or 0) - private < size / 2, "nobody has read them yet"
    assert int(pages.max()) == ord("x")
    assert (private_bytes() or 0) - private > size * 0.9
    assert (resident_bytes() or 0) - resident > size * 0.9


def test_the_peak_of_a_phase_counts_as_it_is_told() -> None:
    host = HostPeak()
    before = host.begin_phase()
    taken = bytearray(b"x") * (256 * MIB)
    grown = host.phase_bytes() - before
    del taken
    host.end_phase(before + 16 * MIB)
    assert grown > 250 * MIB
    assert host.bytes is not None
    if forget_peak_rss():  # else the system has only one peak
        assert host.bytes < before + 250 * MIB
    host.end_phase(before + 2**40)
    assert host.bytes == before + 2**40
