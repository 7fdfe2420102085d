"""Memory that runs out while residents are placed: less of the pipeline stays, with the same bits, or it is refused."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import roost
from dealing import SLOW_UNLESS_TYPICAL
from live_pipelines import (
    STRATEGIES,
    bare_digest,
    digest_without_plan,
    held_by,
    live_pipeline,
    own_pipeline,
    request_for,
    state_of,
    weights_bytes,
)
from out_of_memory import failing_device
from plans import GIB, LAYERWISE, plan_for
from roost.api.plans.update import update_plan
from roost.errors import OutOfMemory
from roost.plan import plan_to_yaml, read_plan
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import Held, hold
from roost.residency.run.generate import generate
from roost.residency.run.loader import load_held
from roost.residency.weights.obstacles import check_obstacles
from roost.units import parse_bytes
from toy_pipelines import state, toy_pipeline

Loaded = Callable[..., Held]


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("strategy", SLOW_UNLESS_TYPICAL)
@pytest.mark.parametrize("name", ["flux", pytest.param("wan2.2", marks=pytest.mark.slow)])
def test_every_allocation_of_a_load_may_fail_and_the_digest_is_the_same(
    name: str, strategy: str, saved: Callable[[str], Path], request: pytest.FixtureRequest
) -> None:
    plan = plan_for(live_pipeline(name), STRATEGIES[strategy])
    wanted, charges, failing = None, 1, 0
    stride = 1 if request.config.getoption("--runslow") else 5
    while failing <= charges:
        device = failing_device(GIB, failing)
        with device, load_held(plan, saved(name), device) as held:
            charges = device._arena.charges
            assert bool(held.demotions) == bool(held.changes) == (0 < failing <= charges)
            assert all(each == {"strategy": "snapshot-offload"} for each in held.demotions.values())
            digest = generate(held, request_for(name)).digest
            wanted = wanted or digest
            assert digest == wanted
        assert device.used_bytes == 0
        failing += 1 if failing == 0 else stride
    assert (charges > 0) == (strategy == "resident")


@pytest.mark.parametrize("failing", [(1, 2), (1, 4, 20), (3, 9, 12, 15)])
def test_several_allocations_may_fail_of_a_load_and_the_generation_after_it(failing: tuple[int, ...]) -> None:
    pipeline = live_pipeline("flux")
    assert bare_digest("flux")  # a first call leaves settings of its own on a pipeline
    before, device = state_of(pipeline), failing_device(GIB, *failing)
    with device, hold(pipeline, plan_for(pipeline), device) as held:
        assert generate(held, request_for("flux")).digest == bare_digest("flux")
        assert len(held.changes) == len(failing)
    assert device.used_bytes == 0
    assert state_of(pipeline) == before


def test_what_can_not_be_placed_beside_the_others_comes_for_its_stages_and_the_plan_file_says_so(
    tmp_path: Path,
) -> None:
    pipeline, path = toy_pipeline(), tmp_path / "plan.yaml"
    right = pipeline.vae(pipeline.transformer(state()))
    plan = plan_for(pipeline, budget_bytes=weights_bytes(pipeline.transformer) + weights_bytes(pipeline.vae) - 1)
    path.write_text(plan_to_yaml(plan))
    with held_by(pipeline, plan) as held:
        assert held.changes == [
            "vae: on the device during its stages only, instead of resident, because memory ran out in placing vae"
        ]
        assert held.demotions == {"vae": {"strategy": "snapshot-offload"}}
        assert held.device.used_bytes == weights_bytes(pipeline.transformer)
        for _ in range(2):
            assert torch.equal(pipeline.vae(pipeline.transformer(state())), right)
        update_plan(path, held.demotions)
    assert held.device.used_bytes == 0
    with held_by(pipeline, read_plan(path)) as held:
        assert torch.equal(pipeline.vae(pipeline.transformer(state())), right)


@pytest.mark.parametrize("name", ["flux", "wan2.2"])
def test_a_component_above_the_budget_streams_as_few_blocks_as_it_must(name: str) -> None:
    pipeline = live_pipeline(name)
    transformer = pipeline.transformer
    plan = plan_for(pipeline, budget_bytes=weights_bytes(transformer) - 1)
    planned = plan.components["transformer"]
    with held_by(pipeline, plan) as held:
        lowered = held.demotions["transformer"]
        assert (lowered["strategy"], lowered["resident_policy"]) == ("layerwise-offload", "strided")
        blocks = sum(stack.count for stack in planned.stacks)
        assert 0 < lowered["resident_blocks"] < blocks  # type: ignore[operator]
        one_more = {**LAYERWISE, "resident_blocks": lowered["resident_blocks"] + 1}  # type: ignore[operator]
        digest = generate(held, request_for(name)).digest
    assert digest == bare_digest(name)
    with held_by(pipeline, plan_for(pipeline, one_more)) as held:
        assert held.runtime.components["transformer"].stage_bytes > plan.budget.budget_bytes


def two_borrowers() -> Any:
    """A transformer, and a VAE whose weights must all stay."""
    pipeline = toy_pipeline()
    blocks = pipeline.vae.blocks
    blocks[1].borrowed = [blocks[0].linear.weight]
    return pipeline


def test_a_component_that_must_stay_makes_another_leave() -> None:
    pipeline = two_borrowers()
    right = pipeline.vae(pipeline.transformer(state()))
    plan = plan_for(pipeline, budget_bytes=weights_bytes(pipeline.transformer) + weights_bytes(pipeline.vae) - 1)
    check_obstacles(plan, pipeline.components)
    with held_by(pipeline, plan) as held:
        assert held.demotions["transformer"]["strategy"] == "snapshot-offload"
        assert set(held.demotions) == {"transformer"}
        latents = pipeline.transformer(state())
        assert torch.equal(pipeline.vae(latents), right)
        # It streams where it doesn't fit beside what must stay.
        assert held.demotions["transformer"]["strategy"] == "layerwise-offload"
        assert set(held.demotions) == {"transformer"}


def test_what_must_stay_is_not_made_to_leave_for_a_call_either() -> None:
    pipeline = two_borrowers()
    blocks = pipeline.transformer.blocks
    blocks[1].borrowed = [blocks[0].linear.weight]
    device = failing_device(GIB)
    with device, hold(pipeline, plan_for(pipeline), device) as held:
        assert held.runtime.step_down(held.runtime.components["vae"]) is None
        assert held.demotions == {}


def least_budget(message: str, budget_bytes: int) -> int:
    found = re.search(r"give at least ([\d.]+ \w+) more with vram=", message)
    assert found is not None, message
    return budget_bytes + parse_bytes(found[1], "the message")


@pytest.mark.parametrize("obstacle", [False, True])
def test_with_nothing_left_the_error_says_how_much_more_is_enough(obstacle: bool) -> None:
    pipeline = two_borrowers() if obstacle else toy_pipeline()
    before = state_of(pipeline)
    budget_bytes = 300
    with EmulatedDevice(budget_bytes) as device:
        with pytest.raises(OutOfMemory, match=r"^placing transformer: .*nothing is left to give up") as caught:
            hold(pipeline, plan_for(pipeline), device)
        assert device.used_bytes == 0
    assert state_of(pipeline) == before
    enough = least_budget(str(caught.value), budget_bytes)
    with EmulatedDevice(enough) as device:
        if not obstacle:
            with hold(pipeline, plan_for(pipeline), device):
                pipeline.vae(pipeline.transformer(state()))
            return
        with pytest.raises(OutOfMemory, match=r"^placing vae: ") as caught:
            hold(pipeline, plan_for(pipeline), device)
    with EmulatedDevice(least_budget(str(caught.value), enough)) as device, hold(pipeline, plan_for(pipeline), device):
        pass


def test_a_resident_vae_that_grows_as_it_changes_its_dtype_may_find_no_room() -> None:
    pipeline = own_pipeline("sdxl").to(torch.float16)
    pipeline.vae.register_to_config(force_upcast=True)
    wanted = digest_without_plan(pipeline, "sdxl")
    modules = [each for each in pipeline.components.values() if isinstance(each, torch.nn.Module)]
    plan = plan_for(pipeline, budget_bytes=sum(map(weights_bytes, modules)) + weights_bytes(pipeline.vae) // 2)
    before = state_of(pipeline)
    with held_by(pipeline, plan) as held:
        assert held.demotions == {}
        for _ in range(2):
            assert generate(held, request_for("sdxl")).digest == wanted
        assert any("because memory ran out in placing vae" in each for each in held.changes)
        assert held.demotions
    assert held.device.used_bytes == 0
    assert state_of(pipeline) == before


def test_attach_with_less_than_planned_gives_way_too() -> None:
    pipeline = live_pipeline("ltx")
    assert bare_digest("ltx")
    before = state_of(pipeline)
    plan = plan_for(pipeline)
    all_bytes = sum(weights_bytes(pipeline.components[name]) for name in plan.load_order)
    held = roost.attach(pipeline, plan, vram=f"{all_bytes - 1}B")
    assert set(held.demotions) == {plan.load_order[-1]}
    assert generate(held, request_for("ltx")).digest == bare_digest("ltx")
    roost.detach(pipeline)
    assert state_of(pipeline) == before


def test_a_module_of_a_class_that_moves_itself_makes_others_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    class Foreign(torch.nn.Module):
        tries = 0

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(4).as_subclass(OfAQuantiser), requires_grad=False)

        def to(self, device: Any) -> Any:
            self.tries += 1
            if self.tries == 1:
                raise torch.OutOfMemoryError("planted. Tried to allocate 16 bytes")
            return self

    foreign = Foreign()
    pipeline = toy_pipeline()
    pipeline = SimpleNamespace(components={**pipeline.components, "text_encoder": foreign})
    with held_by(pipeline, plan_for(pipeline)) as held:
        assert set(held.demotions) == {"transformer"}
        assert foreign.tries == 2


class OfAQuantiser(torch.Tensor):
    pass
