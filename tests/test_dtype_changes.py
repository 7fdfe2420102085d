"""Components that change their dtype, as SDXL's VAE does twice a call, are packed once for each dtype."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from dealing import SLOW_UNLESS_TYPICAL
from live_pipelines import STRATEGIES, digest_without_plan, held_by, own_pipeline, request_for, weights_bytes
from plans import LAYERWISE, plan_for
from roost.plan import PlanDocument
from roost.plan.schema import Masters
from roost.residency.run.generate import generate
from roost.residency.weights.host_masters import Master
from toy_pipelines import state, toy_pipeline


def half_sdxl() -> Any:
    """SDXL in float16, whose VAE is raised to float32 for each decode."""
    pipeline = own_pipeline("sdxl").to(torch.float16)
    pipeline.vae.register_to_config(force_upcast=True)
    return pipeline


@pytest.mark.slow
def test_the_vae_upcast_of_half_precision_sdxl_is_exact_under_every_strategy() -> None:
    pipeline = half_sdxl()
    digests = set()
    for strategy in STRATEGIES.values():
        with held_by(pipeline, plan_for(pipeline, strategy)) as held:
            digests |= {generate(held, request_for("sdxl")).digest for _ in range(2)}
            assert {each.dtype for each in pipeline.vae.parameters()} == {torch.float16}
        assert held.device.used_bytes == 0
    assert len(digests) == 1


@contextmanager
def counted_packings() -> Iterator[list[int]]:
    """The bytes of every master that is made."""
    made: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        original = Master.__init__

        def count(self: Master, layout: Any) -> None:
            made.append(layout.bytes)
            original(self, layout)

        patch.setattr(Master, "__init__", count)
        yield made


@pytest.mark.dealt(2)
@pytest.mark.parametrize("strategy", SLOW_UNLESS_TYPICAL)
def test_only_the_first_upcast_packs_masters(strategy: str) -> None:
    pipeline = half_sdxl()
    wanted = digest_without_plan(pipeline, "sdxl")
    own_bytes = weights_bytes(pipeline.vae)
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        packed = []
        for _ in range(3):
            with counted_packings() as made:
                assert generate(held, request_for("sdxl")).digest == wanted
            packed.append(sum(made))
    # A resident VAE has no master before the first change.
    both = 3 * own_bytes if strategy == "resident" else 2 * own_bytes
    assert packed[0] == pytest.approx(both, rel=0.1)
    assert packed[1:] == [0, 0]


def toy_plan(spare_bytes: int | None = None, **masters: int) -> tuple[Any, PlanDocument]:
    pipeline = toy_pipeline()
    pipeline.vae.to(torch.float16)
    plan = plan_for(pipeline, LAYERWISE)
    host = plan.machine.host
    if masters:
        host = replace(host, pinnable_bytes=2**30)
    if spare_bytes is not None:
        plan = plan.model_copy(update={"budget": plan.budget.model_copy(update={"host_bytes": 2**20})})
        host = replace(host, available_bytes=plan.budget.host_bytes + spare_bytes)
    vae = (
        plan.components["vae"].model_copy(update={"master": Masters(**masters)}) if masters else plan.components["vae"]
    )
    machine = plan.machine.model_copy(update={"host": host})
    return pipeline, plan.model_copy(update={"machine": machine, "components": {**plan.components, "vae": vae}})


def upcast(pipeline: Any) -> torch.Tensor:
    """A decode in float32 of a VAE that rests in float16."""
    pipeline.vae.to(dtype=torch.float32)
    result: torch.Tensor = pipeline.vae(state())
    pipeline.vae.to(dtype=torch.float16)
    return result


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


def in_place(weight: torch.Tensor) -> None:
    weight.data.mul_(2)


def by_new_memory(weight: torch.Tensor) -> None:
    weight.data = weight.data * 2


@pytest.mark.parametrize("edit", [in_place, by_new_memory])
def test_weights_edited_between_two_upcasts_are_not_those_of_the_first(edit: Callable[[torch.Tensor], None]) -> None:
    pipeline, plan = toy_plan()
    with held_by(pipeline, plan) as held:
        first = upcast(pipeline)
        assert torch.equal(upcast(pipeline), first)
        held.runtime.end_call()
        edit(pipeline.vae.blocks[2].linear.weight)
        second = upcast(pipeline)
        assert torch.equal(upcast(pipeline), second)
    assert not torch.equal(first, second)
    assert torch.equal(upcast(pipeline), second)


def test_a_lossy_change_and_back_keeps_the_loss() -> None:
    pipeline = toy_pipeline()
    plain = toy_pipeline()
    for dtype in (torch.bfloat16, torch.float32):
        plain.vae.to(dtype)
    wanted = plain.vae(state())
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        for _ in range(2):
            pipeline.vae.to(torch.bfloat16)
            pipeline.vae.to(torch.float32)
            assert torch.equal(pipeline.vae(state()), wanted)
        assert held.changes == []


def test_buffers_come_back_with_their_dtype() -> None:
    pipeline, plan = toy_plan()
    block = pipeline.vae.blocks[0]
    with held_by(pipeline, plan):
        for _ in range(2):
            upcast(pipeline)
            assert {block.shift.dtype, block.linear.weight.dtype} == {torch.float16}
            assert not block.shift.isnan().any()


def test_without_host_memory_for_both_dtypes_every_change_packs_and_that_is_said() -> None:
    pipeline, plan = toy_plan(spare_bytes=1024)
    with held_by(pipeline, plan) as held:
        first = upcast(pipeline)
        with counted_packings() as made:
            assert torch.equal(upcast(pipeline), first)
        assert made
        assert [each.partition(",")[0] for each in held.changes] == [
            "vae: its weights are packed anew at every change of dtype"
        ]


def test_pinned_masters_of_both_dtypes_count_towards_the_budget_and_are_given_back() -> None:
    pipeline, plan = toy_plan(pinned=6, pageable=0, mapped=0)
    with held_by(pipeline, plan) as held:
        before = held.transfers.pinned_bytes
        upcast(pipeline)
        both = held.transfers.pinned_bytes
        upcast(pipeline)
        assert both > before > 0
        assert held.transfers.pinned_bytes == both
    assert held.transfers.pinned_bytes == 0
