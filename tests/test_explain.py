"""``roost explain``: the sums add up, agree with the planner, and come from the document alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roost.api.plans.explain import explain_plan, explanation_document
from roost.cli.app import run
from roost.plan import PlanDocument, plan_to_yaml
from roost.plan.figures import Rate
from roost.units import GiB
from searched_plans import PARTS, STEPS, ruled, searched
from worlds import component


@pytest.fixture(scope="module")
def plan() -> PlanDocument:
    return searched()


@pytest.fixture
def shown(tmp_path: Path, capsys):
    """Saves a plan, runs ``roost explain`` on it, and returns what it printed."""

    def show(plan: PlanDocument, *words: str) -> str:
        (tmp_path / "plan.yaml").write_text(plan_to_yaml(plan), encoding="utf-8")
        assert run(["explain", str(tmp_path / "plan.yaml"), *words]) == 0
        return capsys.readouterr().out

    return show


def test_each_stage_s_parts_add_up_to_its_predicted_peak(plan: PlanDocument) -> None:
    stages = explain_plan(plan).stages
    assert [each.name for each in stages] == [each.name for each in plan.predicted.stages]
    assert [each.phase for each in stages] == ["text_encode", "denoise", "decode"]
    for stage, predicted in zip(stages, plan.predicted.stages, strict=True):
        assert stage.weights_bytes + stage.context_bytes + stage.activation_bytes == predicted.peak_bytes
        assert stage.left_bytes == plan.budget.budget_bytes - predicted.peak_bytes
        assert sum(stage.weights.values()) <= stage.weights_bytes


def test_what_a_component_would_need_resident_is_what_the_planner_finds(plan: PlanDocument) -> None:
    account = next(each for each in explain_plan(plan).components if each.name == "transformer")
    kept = [f"{name}={each.strategy}" for name, each in plan.components.items() if name != "transformer"]
    forced = searched(20, "transformer=resident", *kept)
    assert not forced.fits
    assert account.if_resident.peak_bytes == forced.predicted.peak_bytes.mid
    assert account.if_resident.short_bytes == forced.predicted.peak_bytes.mid - plan.budget.budget_bytes
    assert account.if_resident.stage == max(forced.predicted.stages, key=lambda each: each.peak_bytes).name


def test_copies_of_a_pass_are_the_streamed_blocks_at_the_rate_of_the_link() -> None:
    plan = searched(20, "transformer=layerwise-offload,resident_blocks=10", link=10e9)
    (work,) = next(each for each in explain_plan(plan).components if each.name == "transformer").work
    block_bytes = PARTS[0].units[0].block_bytes[0]
    assert work.passes == 2 * STEPS
    assert work.pass_h2d_bytes == 30 * block_bytes
    assert work.pass_copy_s == pytest.approx(30 * block_bytes / 10e9)
    assert work.pass_s >= max(work.pass_copy_s, work.pass_compute_s) * (1 - 1e-9)


def test_blocks_that_are_held_for_their_stage_are_not_said_to_stay(shown) -> None:
    vae = component("vae", 3 * GiB, blocks=17, position=2)
    plan = searched(20, "vae=layerwise-offload,resident_blocks=0", parts=(*PARTS[:2], vae))
    held = plan.components["vae"].model_copy(update={"hold": True})
    plan = plan.model_copy(update={"components": {**plan.components, "vae": held}})
    (account,) = [each for each in explain_plan(plan).components if each.name == "vae"]
    assert (account.held, account.resident_blocks, account.blocks) == (True, 0, 17)
    assert "17 blocks held, each from its first use until the stage ends" in " ".join(shown(plan).split())


def test_a_step_is_all_denoising_over_the_steps(plan: PlanDocument) -> None:
    explanation = explain_plan(plan)
    assert explanation.step_compute_s == pytest.approx(2 * 50e12 / 100e12)
    assert explanation.step_compute_s <= plan.predicted.step_s.mid


def test_the_front_has_only_plans_that_fit_and_that_none_beats(plan: PlanDocument) -> None:
    rows = explain_plan(plan).plans
    assert {"chosen", "rule plan", "runner-up", "all resident"} <= {name for row in rows for name in row.names}
    assert [row.seconds for row in rows] == sorted(row.seconds for row in rows)
    fitting = [(row, (row.seconds, row.peak_bytes, row.host_bytes)) for row in rows if row.fits]
    for row, key in fitting:
        beaten = any(other != key and all(a <= b for a, b in zip(other, key, strict=True)) for _, other in fitting)
        assert row.on_front is not beaten
    assert not any(row.on_front for row in rows if not row.fits)


def test_one_placement_with_several_names_is_listed_once() -> None:
    rows = explain_plan(searched(200, parts=PARTS[2:])).plans
    names = [name for row in rows for name in row.names]
    assert len(names) == len(set(names))
    assert len({json.dumps(row.strategies) for row in rows}) == len(rows) < len(names)


def test_screen_names_reason_arithmetic_rules_and_what_was_typed(shown) -> None:
    text = shown(searched(20, "vae=component-offload"))
    assert "− 1.00 GiB headroom = 19.0 GiB" in text
    assert "vae: component-offload, decided by flag:--set vae=component-offload" in text
    assert "typed  --set vae=component-offload" in text
    assert "rule plan  HELPERS-LAYERWISE: " in text
    assert "resident  would need 28.0 GiB always: " in text
    assert "pinned h2d" in text


def test_a_rule_plan_is_explained_by_its_weights(shown) -> None:
    text = shown(ruled())
    assert "no prediction" in text
    assert "Activations" not in text
    assert "transformer: " in text
    assert "no alternatives" in shown(ruled(), "--alternatives")


def test_a_plan_that_does_not_fit_is_explained_with_what_would(shown) -> None:
    plan = searched(20, "all=resident")
    lines = shown(plan).splitlines()
    assert any(line.startswith("verdict: does not fit") for line in lines)
    assert sum(line.startswith("would fit  ") for line in lines) == len(plan.budget.would_fit) > 0


def test_paragraphs_are_no_wider_than_a_terminal(shown) -> None:
    lines = [line for line in shown(searched(20, "vae=component-offload")).splitlines() if "× " not in line]
    assert max(map(len, lines)) <= 80


def test_alternatives_are_a_table_with_the_chosen_plan_in_it(shown) -> None:
    lines = shown(searched(), "--alternatives").splitlines()
    assert lines[1].split() == ["Plan", "Seconds", "Delta", "VRAM", "Host", "Fits", "Front"]
    assert sum(line.startswith("chosen  ") for line in lines) == 1


def test_json_is_one_object_with_bytes_as_whole_numbers(plan: PlanDocument, shown) -> None:
    document = json.loads(shown(plan, "--json"))
    assert document == json.loads(json.dumps(explanation_document(plan, explain_plan(plan))))
    assert document["schema"] == 1
    assert all(isinstance(each["peak_bytes"], int) for each in document["stages"])
    assert {each["id"] for each in document["fired"]} == {each.id for each in plan.policy.fired}
    assert document["plan"]["workload"]["steps"] == plan.workload.steps


@pytest.mark.parametrize("keep", [0, 100, 3000])
def test_a_truncated_plan_is_one_line_and_exit_code_2(plan: PlanDocument, keep: int, tmp_path: Path, capsys) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(plan_to_yaml(plan)[:keep], encoding="utf-8")
    assert run(["explain", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: plan ")


def test_a_prior_is_shown_as_the_spec_that_it_is(plan: PlanDocument, shown) -> None:
    prior = Rate(value=1.0, spread=2.0, source="spec", why="prior: 7 µs a bare launch", prior=True)
    sheet = Rate(value=1.0, spread=2.0, source="spec", why="80% of PCIe")
    arithmetic = plan.arithmetic.model_copy(update={"rates": {"a": prior, "b": sheet}})
    screen = shown(plan.model_copy(update={"arithmetic": arithmetic}))
    assert "spec: 7 µs a bare launch" in screen
    assert "spec: 80% of PCIe" in screen


def test_a_plan_of_an_earlier_version_has_no_arithmetic_and_is_explained(plan: PlanDocument, shown) -> None:
    assert "by " in shown(plan.model_copy(update={"arithmetic": None}))
