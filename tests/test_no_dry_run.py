"""Without a dry run, weights alone decide what fits, and every outcome says why nothing else is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from real_models import RealModel
from roost.api.plans import plan as planning
from roost.cli.app import run
from roost.facts.request import Choices, Workload
from roost.plan import PlanDocument, plan_to_yaml, read_plan
from roost.planner.by_rules import plan_by_rules
from roost.planner.by_search import plan_by_search
from roost.planner.cost.costs import CostModel
from roost.planner.cost.untraced import guessing, untraced
from roost.planner.rule_plan import predicted_rule_plan, traced_rule_plan
from roost.planner.rules.selectors import parse_set
from roost.planner.search.columns import Aim
from roost.planner.search_question import SearchQuestion
from roost.trace import trace_from_json, trace_to_json
from roost.tune.trials.candidates import Candidate, why_unfit
from roost.units import MiB
from traces import rates, trace, use
from worlds import component, inventory, machine, question

TERA, REASON = 10**12, "TypeError: 'no shift_factor'."
SMALL = (
    component("transformer", 80 * MiB, blocks=8),
    component("text_encoder", 40 * MiB, blocks=4, position=1),
    component("vae", 8 * MiB, position=2),
)
WORKLOAD = Workload(width=64, height=64, frames=None, steps=2, batch=1, guidance=1.0)


def blind(free_gib: float, *sets: str, **changes: Any) -> SearchQuestion:
    """The question about a small model on so much VRAM, whose dry run failed."""
    choices = Choices(sets=tuple(map(parse_set, sets)))
    model = CostModel(rates=rates(), backend=changes.pop("backend", "emulated"))
    machine_ = replace(machine(free_gib), headroom_bytes=0)
    made = SearchQuestion(
        question=question(inventory(*SMALL), machine_, choices, workload=WORKLOAD),
        trace=untraced(SMALL, WORKLOAD, REASON),
        model=guessing(model, SMALL),
        aim=Aim(),
    )
    return replace(made, **changes)


def least(plan: PlanDocument) -> list[str]:
    return [each.strategy for each in plan.components.values() if each.decided_by == "search"]


@pytest.mark.parametrize("backend", ["emulated", "cuda"])
def test_what_activations_are_guessed_to_take_never_refuses(backend: str) -> None:
    """An encoder is guessed to take 320 MiB, and a CUDA context half a GiB: the weights stream through 50 MiB."""
    plan = plan_by_search(blind(50 / 1024, backend=backend))
    assert plan.fits
    assert plan.budget.activations_known is False
    assert plan.budget.verdict.startswith("weights fit; activations not known: weights peak at")
    assert "resident" not in least(plan)
    assert all("nobody knows what activations take" in each.why for each in plan.components.values())
    assert plan.predicted is not None
    assert plan.predicted.peak_bytes.high <= 27 * MiB  # the trunk and two blocks: what is left is for activations
    assert any("no dry run" in each and "no shift_factor" in each for each in plan.warnings)
    assert read_plan_text(plan) == plan


def read_plan_text(plan: PlanDocument) -> PlanDocument:
    return PlanDocument.model_validate(yaml.safe_load(plan_to_yaml(plan)))


def test_a_guess_leaves_room_where_there_is_room_to_leave() -> None:
    plan = plan_by_search(blind(4))
    assert plan.fits
    assert plan.budget.activations_known is False
    assert plan.budget.verdict.startswith("weights fit; activations not known")
    assert any("no dry run" in each and "no shift_factor" in each for each in plan.warnings)
    assert not any("free memory" in each for each in plan.warnings)


@pytest.mark.parametrize("free_gib", [4, 100 / 1024])
def test_what_was_typed_is_kept_without_a_dry_run(free_gib: float) -> None:
    sets = ("text_encoder=component-offload", "transformer=layerwise-offload,resident_blocks=2")
    plan = plan_by_search(blind(free_gib, *sets))
    assert plan.fits
    assert plan.components["text_encoder"].strategy == "component-offload"
    assert plan.components["transformer"].resident_blocks == 2
    assert plan.components["transformer"].decided_by.startswith("flag:")


@pytest.mark.parametrize(("free_gib", "sets"), [(15 / 1024, ()), (70 / 1024, ("transformer=resident",))])
def test_weights_that_cannot_fit_are_refused_with_the_reason_of_the_failed_dry_run(
    free_gib: float, sets: tuple[str, ...]
) -> None:
    plan = plan_by_search(blind(free_gib, *sets, trace_other=lambda _: pytest.fail("dry-run again")))
    assert not plan.fits
    assert plan.budget.deficit_bytes > 0
    assert plan.budget.activations_known is False
    for text in ("VRAM is", "of weights alone", "activations are not known", "dry run failed", "no shift_factor"):
        assert text in plan.budget.verdict
    assert any("no dry run" in each for each in plan.warnings)
    assert plan.budget.would_fit  # by weights, so said in the same breath


def test_a_traced_plan_still_counts_activations() -> None:
    calls = trace((use(SMALL[1], TERA, 320 * MiB), 1), (use(SMALL[0], TERA, 4 * MiB), 2), (use(SMALL[2], TERA, 1), 1))
    plan = plan_by_search(blind(50 / 1024, trace=calls, model=CostModel(rates=rates(), backend="emulated")))
    assert not plan.fits
    assert plan.budget.activations_known is True
    assert "dry run" not in plan.budget.verdict


def test_a_bench_leaves_no_candidate_out_by_a_guess() -> None:
    asked = blind(90 / 1024)
    plan = predicted_rule_plan(asked)
    assert plan.fits
    assert why_unfit(Candidate(name="rule plan", strategy="rules", plan=plan, predicted=plan.predicted)) is None


def test_that_a_trace_is_a_guess_survives_its_file() -> None:
    guess = untraced(SMALL, WORKLOAD, REASON)
    assert guess.no_dry_run == REASON.rstrip(".")
    assert trace_from_json(trace_to_json(guess)) == guess


def ruled_question(activations: int, free_gib: float = 90 / 1024) -> SearchQuestion:
    calls = trace((use(SMALL[0], TERA, activations), 2), (use(SMALL[2], TERA, MiB), 1))
    choices = "transformer=resident", "text_encoder=component-offload", "vae=component-offload"
    model = CostModel(rates=rates(), backend="emulated")
    return blind(free_gib, *choices, trace=calls, model=model)


@pytest.mark.parametrize(("activations", "fits"), [(4 * MiB, True), (20 * MiB, False)])
def test_a_rule_plan_with_a_trace_counts_activations(activations: int, fits: bool) -> None:
    asked = ruled_question(activations, free_gib=130 / 1024) if fits else ruled_question(activations)
    by_weights = plan_by_rules(ruled_question(activations, free_gib=130 / 1024).question)
    assert by_weights.fits
    assert by_weights.budget.activations_known is False
    assert by_weights.budget.verdict.startswith("weights fit; activations not known")
    assert any("--policy search" in each for each in by_weights.warnings)
    for plan in (traced_rule_plan(asked), predicted_rule_plan(asked)):
        assert plan.fits is fits
        assert plan.policy.name == "rules"
        assert read_plan_text(plan) == plan
        if fits:
            assert plan.budget.activations_known is True
            assert plan.budget.verdict.startswith("fits: with activations")
            assert not any("--policy search" in each for each in plan.warnings)


def test_a_rule_plan_that_leaves_no_room_for_activations_does_not_fit(
    real_model: RealModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    """FLUX.1-dev by the rules: 22.2 GiB of weights, 0.5 GiB of activations, 22.5 GiB of budget."""
    model, saved = str(real_model("flux.1-dev")), tmp_path / "plan.yaml"
    words = ["plan", model, "--gpu", "rtx-4090", "--ram", "64GiB", "--policy", "rules", "-v", "-o", str(saved)]
    assert run(words) == 0
    shown = capsys.readouterr()
    assert "verdict: weights fit; activations not known" in shown.out
    assert "--policy search" in shown.out
    assert "Next" not in shown.err
    assert read_plan(saved).fits

    def kept(inventory_: Any, _: object, workload: Workload) -> Any:
        denoiser, *_rest = (each for each in inventory_.components if each.name == "transformer")
        return replace(trace((use(denoiser, TERA, 477 * MiB), 28), steps=28), workload=workload)

    monkeypatch.setattr(planning, "kept_trace", kept)
    assert run(words) == 3
    shown = capsys.readouterr()
    assert "verdict: does not fit: with activations, transformer" in shown.out
    assert "Next" not in shown.err
    assert not read_plan(saved).fits
    assert read_plan(saved).budget.activations_known is True
    assert run([*words, "--vram", "48GiB"]) == 0
    assert "Next: roost run" in capsys.readouterr().err
