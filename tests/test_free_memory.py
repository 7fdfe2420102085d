"""With less VRAM free than planned, streamed components give up resident blocks, and others what the ladder takes."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from plans import LAYERWISE, plan_for
from roost.errors import NothingFits
from roost.plan import PlanDocument
from roost.plan.budget import StageWeights
from roost.residency.hold.free_memory import fewer_resident_blocks

BLOCK_BYTES = 4 * (100 + 10)
HEADROOM = 1000


def streamed_model(blocks: int) -> torch.nn.Module:
    layers = [torch.nn.ModuleDict({"linear": torch.nn.Linear(10, 10)}) for _ in range(blocks)]
    return torch.nn.ModuleDict({"blocks": torch.nn.ModuleList(layers)})


def plan_of(resident: int, slots: int = 2, **parameters: Any) -> PlanDocument:
    """A DiT of 10 blocks that streams and an encoder of 4, each in a stage of its own beside a resident VAE."""
    pipeline = SimpleNamespace(
        components={"transformer": streamed_model(10), "text_encoder": streamed_model(4), "vae": torch.nn.Linear(9, 9)}
    )
    weights = {"transformer": (resident + slots) * BLOCK_BYTES, "vae": 360}
    denoise = StageWeights(name="denoise", components=weights, weights_bytes=sum(weights.values()))
    encoding = {"text_encoder": 4 * BLOCK_BYTES, "vae": 360}
    encode = StageWeights(name="text encode", components=encoding, weights_bytes=sum(encoding.values()))
    plan = plan_for(
        pipeline,
        components={
            "transformer": {**LAYERWISE, "resident_blocks": resident, **parameters},
            "text_encoder": {**LAYERWISE, "resident_blocks": 2},
        },
        stages=[encode, denoise],
        budget_bytes=denoise.weights_bytes,
        free_bytes=denoise.weights_bytes + HEADROOM,
    )
    assert plan.components["transformer"].slots == min(2, 10 - resident) == slots
    return plan


def test_as_much_memory_as_planned_changes_nothing() -> None:
    plan = plan_of(6)
    assert fewer_resident_blocks(plan, plan.budget.free_bytes) == (plan, [])
    assert fewer_resident_blocks(plan, 2 * plan.budget.free_bytes) == (plan, [])


@pytest.mark.parametrize(("short_bytes", "resident"), [(1, 5), (BLOCK_BYTES, 5), (BLOCK_BYTES + 1, 4)])
def test_blocks_are_given_up_until_the_stage_fits(short_bytes: int, resident: int) -> None:
    plan = plan_of(6)
    changed, changes = fewer_resident_blocks(plan, plan.budget.free_bytes - short_bytes)
    assert changed.components["transformer"].resident_blocks == resident
    assert changed.components["transformer"].master.pageable == 10 - resident
    assert changed.components["text_encoder"] == plan.components["text_encoder"]
    assert len(changes) == 1
    assert f"transformer: {resident} resident blocks instead of 6" in changes[0]
    assert PlanDocument.model_validate(changed.model_dump(by_alias=True)) == changed


def test_a_fully_resident_stack_pays_for_its_slots_when_it_starts_to_stream() -> None:
    plan = plan_of(10, slots=0)
    changed, _ = fewer_resident_blocks(plan, plan.budget.free_bytes - 1)
    transformer = changed.components["transformer"]
    assert (transformer.resident_blocks, transformer.slots) == (7, 2)


def test_what_blocks_can_not_give_is_left_to_the_ladder() -> None:
    plan = plan_of(6)
    short = BLOCK_BYTES + HEADROOM  # for one slot, and not beside the resident VAE
    changed, changes = fewer_resident_blocks(plan, short)
    assert [changed.components[name].resident_blocks for name in ("transformer", "text_encoder")] == [0, 0]
    assert changed.components["vae"] == plan.components["vae"]
    assert len(changes) == 2


def test_a_component_that_could_not_even_stream_is_refused_with_its_deficit() -> None:
    plan = plan_of(6)
    with pytest.raises(NothingFits, match=r"'text_encoder' needs 1 B more .*vram="):
        fewer_resident_blocks(plan, BLOCK_BYTES + HEADROOM - 1)


def test_held_blocks_are_not_given_up_ahead() -> None:
    plan = plan_of(6, hold=True)
    assert fewer_resident_blocks(plan, plan.budget.free_bytes - 1) == (plan, [])
