"""A model with blocks taken out of the middle of its stacks runs, and gives the same bits under every strategy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import roost
from roost.api.inspection import inspect_model
from roost.api.options import PlanOptions
from roost.api.planning import search_question
from roost.errors import UsageError
from roost.plan import PlanDocument
from roost.residency.calls import GenerationRequest
from roost.residency.cutting import keep_blocks, loading_cut
from roost.residency.loader import load_component
from roost.residency.plain import move_whole
from roost.residency.trial import Trial, TrialFigures, TrialSetup, open_trial
from roost.tune.candidates import list_candidates
from roost.tune.cuts import Cut, cut_of, cut_plan
from roost.tune.trials import Trials, world_of
from tiny_models import build_deep, default_call

CALL = {**default_call("wan2.2"), "num_inference_steps": 3}
MIB = 1024**2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_deep(tmp_path_factory.mktemp("cut") / "model", 12, two_experts=True)


def plan_of(model: Path, choice: str) -> PlanDocument:
    return roost.make_plan(model, gpu="emulated", vram="64MiB", headroom="0", policy="rules", set=choice, steps=3)


def cut_to_four(model: Path) -> Cut:
    experts = [each for each in inspect_model(model).components if each.name.startswith("transformer")]
    cut = cut_of(experts, 3)
    assert str(cut) == "8 of 24 blocks"
    return cut


def setup_of(model: Path, plan: PlanDocument, **changed: Any) -> TrialSetup:
    """The trial of ``plan`` on what is left of the model, as a child sets it up."""
    cut = cut_to_four(model)
    kept = {name: {stack: each.kept for stack, each in stacks.items()} for name, stacks in cut.stacks.items()}
    whole = TrialSetup(
        plan=cut_plan(plan, cut),
        model_dir=model,
        device_kind="emulated",
        budget_bytes=64 * MIB,
        load=loading_cut(load_component, plan, kept),
    )
    return replace(whole, **changed)


def measured(trial: Trial) -> TrialFigures:
    call = dict(CALL)
    return trial.measure(GenerationRequest(prompt=call.pop("prompt"), more=call))


def test_a_cut_model_gives_the_bits_of_diffusers_alone_on_the_same_cut(model: Path) -> None:
    resident = plan_of(model, "all=resident")
    with open_trial(setup_of(model, resident, place=move_whole)) as trial:
        plain = measured(trial)
    with open_trial(setup_of(model, plan_of(model, "dit=layerwise-offload,resident_blocks=3"))) as trial:
        first, second = measured(trial), measured(trial)
    whole = TrialSetup(plan=resident, model_dir=model, device_kind="emulated", budget_bytes=64 * MIB)
    with open_trial(whole) as trial:
        assert measured(trial).digest != plain.digest
    assert first.digest == second.digest == plain.digest
    assert second.bytes_copied
    assert second.demotions == {}


def test_children_that_share_weights_run_what_a_cut_leaves(model: Path) -> None:
    options = PlanOptions(gpu="emulated", vram="64MiB", headroom=0, size="64x64", frames=9, steps=2)
    asked = search_question(str(model), options)
    entrants = list_candidates(asked, ("layerwise-offload",))
    streamed = next(each for each in entrants.racing if each.name == "layerwise k=0 strided p1")
    assert entrants.plain is not None
    with Trials(world_of(asked, entrants, model, 2)) as trials:
        plain, cut = (trials.run(each, cut=cut_to_four(model)) for each in (entrants.plain, streamed))
    assert (plain.status, cut.status) == ("ok", "ok"), (plain.reason, cut.reason)
    assert cut.digest == plain.digest
    assert cut.bytes_copied


class Block(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, width)


class OtherBlock(Block):
    pass


def stack_of(*blocks: torch.nn.Module) -> torch.nn.Module:
    module = torch.nn.Module()
    module.blocks = torch.nn.ModuleList(blocks)
    return module


def test_the_blocks_that_stay_move_up() -> None:
    blocks = [Block(2) for _ in range(6)]
    module = stack_of(*blocks)
    keep_blocks(module, "blocks", (0, 1, 5))
    assert list(module.blocks) == [blocks[0], blocks[1], blocks[5]]
    assert {name.split(".")[1] for name in module.state_dict()} == {"0", "1", "2"}


@pytest.mark.parametrize("other", [OtherBlock(2), Block(3)], ids=["of another class", "of another shape"])
def test_a_block_is_dropped_only_where_its_neighbour_stands_for_it(other: torch.nn.Module) -> None:
    module = stack_of(Block(2), Block(2), other, Block(2))
    with pytest.raises(UsageError, match="differ at 2"):
        keep_blocks(module, "blocks", (0, 3))
    assert len(module.blocks) == 4
    keep_blocks(module, "blocks", (0, 2, 3))
    assert len(module.blocks) == 3
