"""Host memory in turns: what isn't needed again gives it back, what comes later makes its masters then, same bits."""

from __future__ import annotations

import gc
import mmap
import os
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine_cases import digest_of
from live_pipelines import bare_digest, request_for
from plans import LAYERWISE, plan_in
from roost.api.plans.preflight import check_host_memory, keeping_masters, why_masters_stay
from roost.errors import NothingFits, RoostError
from roost.facts.machine import HostFacts
from roost.plan import ComponentPlan, PlanDocument
from roost.plan.budget import HostTurn
from roost.plan.revision import revised
from roost.profiles.class_facts import load_class_facts
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import Held
from roost.residency.run.components import load_component
from roost.residency.run.generate import generate
from roost.residency.run.loader import Source, load_held
from roost.residency.run.texts_ahead import TextsAhead
from roost.residency.run.trial import TrialSetup, open_trial
from roost.residency.weights import host_masters
from roost.residency.weights.host_masters import Master
from roost.residency.weights.mapped_masters import MappedMaster
from tiny_models import build
from worlds import component


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("flux", tmp_path_factory.mktemp("turns") / "flux")


def turns_plan(directory: Path, dtype: torch.dtype | None = None) -> PlanDocument:
    """Encoders first, then the denoiser in their place, which stays beside the VAE."""
    plan = plan_in(directory, LAYERWISE, "pinned", dtype)
    sizes = {name: each.load_bytes for name, each in plan.components.items()}
    sets = [
        ("text_encoder", ["text_encoder"]),
        ("text_encoder_2", ["text_encoder", "text_encoder_2"]),
        ("transformer", ["transformer"]),
        ("vae", ["transformer", "vae"]),
    ]
    turns = [
        HostTurn(
            component=name,
            masters={each: sizes[each] for each in there},
            host_bytes=sum(sizes[each] for each in there),
        )
        for name, there in sets
    ]
    most = max(each.host_bytes for each in turns)
    return revised(plan, budget=revised(plan.budget, host_turns=turns, host_bytes=most))


class HostMemory(mmap.mmap):
    """Like any, and can be watched."""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> weakref.WeakSet:
    """What was taken of host memory, and is not given back."""
    found: weakref.WeakSet = weakref.WeakSet()

    def take(*args: Any, **flags: Any) -> HostMemory:
        made = HostMemory(*args, **flags)
        found.add(made)
        return made

    fake = SimpleNamespace(
        mmap=take, PAGESIZE=mmap.PAGESIZE, MAP_PRIVATE=mmap.MAP_PRIVATE, MAP_ANONYMOUS=mmap.MAP_ANONYMOUS
    )
    monkeypatch.setattr(host_masters, "mmap", fake)
    return found


@pytest.fixture
def held(flux: Path) -> Iterator[Held]:
    with EmulatedDevice(2**30) as device, torch.no_grad():
        made = load_held(turns_plan(flux), flux, device)
        yield made
        made.abandon()


def masters(held: Held, name: str) -> list[Any]:
    return [each.master for each in held.runtime.components[name].units.values() if each.bytes]


def test_one_generation_gives_back_and_makes_masters_in_turn_with_the_same_bits(
    taken: weakref.WeakSet, held: Held
) -> None:
    at_first = weakref.WeakSet(taken)
    assert len(at_first) == len(masters(held, "text_encoder"))
    assert {type(each) for each in masters(held, "transformer")} == {MappedMaster}
    assert digest_of(held, "flux") == bare_digest("flux")
    assert not at_first
    assert held.runtime.components["text_encoder"].gone
    assert masters(held, "text_encoder") == [None] * len(masters(held, "text_encoder"))
    assert {type(each) for each in masters(held, "transformer")} == {Master}
    assert {each.tier for each in masters(held, "transformer")} == {"pinned"}
    assert held.changes == []
    with pytest.raises(RoostError, match="text_encoder is used again after the plan has given its host memory back"):
        digest_of(held, "flux")


def test_of_several_generations_encoders_go_when_every_text_is_encoded(held: Held) -> None:
    requests = [replace(request_for("flux"), prompt=each) for each in ("a fox", "a red goose")]
    with TextsAhead(held, requests) as texts:
        texts.reach(0)
        assert texts.complete
        assert not held.runtime.components["text_encoder"].gone
        first = [generate(held, each).digest for each in requests]
        assert held.runtime.components["text_encoder"].gone
        assert [generate(held, each).digest for each in requests] == first


def test_a_file_that_changes_before_its_masters_are_made_is_refused(held: Held, flux: Path) -> None:
    file = next((flux / "transformer").glob("*.safetensors"))
    before = file.stat()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    try:
        with pytest.raises(RoostError, match="has changed since the model was loaded"):
            digest_of(held, "flux")
    finally:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.slow
def test_what_is_cast_as_it_loads_comes_late_with_the_same_bits_and_never_beside_what_left(
    flux: Path, taken: weakref.WeakSet
) -> None:
    plan, seen = turns_plan(flux, torch.bfloat16), dict[str, int]()

    def load(name: str, placed: ComponentPlan, model_dir: Path) -> torch.nn.Module:
        gc.collect()
        seen[name] = sum(map(len, taken))
        return load_component(name, placed, model_dir)

    def made(plan: PlanDocument) -> str:
        source = Source(load=load, class_facts=load_class_facts())
        with EmulatedDevice(2**30) as device, torch.no_grad(), load_held(plan, flux, device, source=source) as held:
            found = digest_of(held, "flux")
            assert held.changes == []
            return found

    assert made(keeping_masters(plan)) == made(plan) != bare_digest("flux")
    sizes = {name: each.load_bytes for name, each in plan.components.items()}
    assert sizes["text_encoder"] <= seen["text_encoder_2"] < 1.5 * sizes["text_encoder"]
    assert seen["transformer"] == 0  # nothing else is there


def test_a_trial_makes_one_generation_and_late_masters_are_no_part_of_its_seconds(flux: Path) -> None:
    setup = TrialSetup(
        plan=turns_plan(flux, torch.bfloat16),
        model_dir=flux,
        device_kind="emulated",
        budget_bytes=2**30,
        source=Source(load=lambda *given: (time.sleep(0.5), load_component(*given))[1]),
    )
    with open_trial(setup) as trial:
        result = trial.measure(request_for("flux"))
        assert result.status == "ok"
        stages = {each.component: each.seconds for each in result.stages}
        assert all(stages[name] > 0.5 for name in ("transformer", "text_encoder_2"))
        assert result.generation_s is not None
        assert result.generation_s < sum(stages.values()) - 1.0  # vae comes late, too
        assert {result.peak_bytes, *(each.peak_bytes for each in result.stages)} == {None}  # activations not counted
        with pytest.raises(RoostError, match="used again"):
            trial.measure(request_for("flux"))


@pytest.fixture
def cast(flux: Path) -> Iterator[Held]:
    """With a denoiser whose weights are float32 in its files, and half as large in memory."""
    with EmulatedDevice(2**30) as device, torch.no_grad():
        made = load_held(turns_plan(flux, torch.bfloat16), flux, device)
        yield made
        made.abandon()


def test_weights_that_are_not_there_yet_are_refused_to_whoever_reads_them_and_loaded_for_whoever_casts_them(
    cast: Held, flux: Path
) -> None:
    module = cast.pipeline.transformer
    assert module.dtype == torch.bfloat16
    with pytest.raises(RoostError, match="transformer outside its blocks: its weights are read before"):
        module.proj_out.weight.sum()
    module.to(torch.float32)
    loaded = load_component("transformer", cast.plan.components["transformer"], flux)
    assert torch.equal(module.proj_out.weight, loaded.proj_out.weight.float())


def test_a_component_that_loads_otherwise_than_it_was_built_is_refused(flux: Path) -> None:
    def load(name: str, placed: ComponentPlan, model_dir: Path) -> torch.nn.Module:
        module = load_component(name, placed, model_dir)
        return module.to(torch.float16) if name == "transformer" else module

    plan = turns_plan(flux, torch.bfloat16)
    with (
        EmulatedDevice(2**30) as device,
        torch.no_grad(),
        load_held(plan, flux, device, source=Source(load=load)) as held,
        pytest.raises(RoostError, match="transformer loads otherwise than it was built"),
    ):
        digest_of(held, "flux")


def test_what_the_calls_need_again_is_checked_against_host_memory(flux: Path) -> None:
    plan = turns_plan(flux)
    assert why_masters_stay(plan, 1) is None
    assert why_masters_stay(plan, 3) is None  # texts are encoded first
    assert why_masters_stay(plan, 1, loras=True) is not None
    last = plan.budget.host_turns[-1]
    leaving = revised(last, masters={"vae": last.masters["vae"]})
    denoiser_leaves = revised(plan, budget=revised(plan.budget, host_turns=[*plan.budget.host_turns[:-1], leaving]))
    assert why_masters_stay(denoiser_leaves, 1) is None
    why = why_masters_stay(denoiser_leaves, 3)
    assert why is not None
    everything = keeping_masters(denoiser_leaves)
    assert everything.budget.host_bytes == sum(each.load_bytes for each in plan.components.values())
    files = SimpleNamespace(component=lambda name: component(name, 1))
    enough = HostFacts(available_bytes=everything.budget.host_bytes, pinnable_bytes=0, source="a test")
    check_host_memory(everything, files, enough, why)  # type: ignore[arg-type]
    short = replace(enough, available_bytes=enough.available_bytes - 1)
    with pytest.raises(NothingFits, match="3 generations need them again: plan for that with generations=2"):
        check_host_memory(everything, files, short, why)  # type: ignore[arg-type]
