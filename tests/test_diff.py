"""``roost diff``: two plans compared, what they are for before what they decide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roost.api.plans.diff import diff_plans
from roost.cli.app import run
from roost.plan import PlanDocument, plan_to_yaml
from roost.plan.trials import Measured, StepTimes
from searched_plans import PARTS, ruled, searched


@pytest.fixture
def shown(tmp_path: Path, capsys):
    """Saves two plans, runs ``roost diff`` on them, and returns what it printed."""

    def show(before: PlanDocument, after: PlanDocument, *words: str) -> str:
        for name, plan in (("a", before), ("b", after)):
            (tmp_path / f"{name}.yaml").write_text(plan_to_yaml(plan), encoding="utf-8")
        assert run(["diff", f"{tmp_path}/a.yaml", f"{tmp_path}/b.yaml", *words]) == 0
        return capsys.readouterr().out

    return show


def found(differences) -> dict[tuple[str, str], tuple[object, object]]:
    return {(each.about, each.what): (each.before, each.after) for each in differences}


@pytest.mark.long
def test_a_plan_does_not_differ_from_itself(shown) -> None:
    differences = diff_plans(searched(), searched())
    assert differences.same_model
    assert not any((differences.subjects, differences.decisions, differences.figures, differences.causes))
    assert shown(searched(), searched()) == "no decision differs.\n"


def test_what_was_typed_is_the_cause_of_another_decision_and_figure() -> None:
    before, after = searched(20), searched(20, "transformer=layerwise-offload,resident_blocks=3")
    differences = diff_plans(before, after)
    assert differences.subjects == ()
    decided = found(differences.decisions)
    assert decided["transformer", "resident_blocks"] == (before.components["transformer"].resident_blocks, 3)
    assert found(differences.causes)["policy", "typed"][1] == "--set transformer=layerwise-offload,resident_blocks=3"
    first = found(differences.figures)["predicted", "first_s"]
    assert first == (before.predicted.first_s.mid, after.predicted.first_s.mid)


@pytest.mark.slow
def test_every_value_stands_in_its_own_plan() -> None:
    """Turned around, before and after change places and nothing else changes."""
    one, other = searched(20), searched(60, "vae=component-offload", link=5e9)
    there, back = diff_plans(one, other), diff_plans(other, one)
    for forward, backward in zip(
        (there.subjects, there.decisions, there.figures, there.causes),
        (back.subjects, back.decisions, back.figures, back.causes),
        strict=True,
    ):
        assert {key: pair[::-1] for key, pair in found(forward).items()} == found(backward)


def test_another_machine_is_said_before_anything_else(shown) -> None:
    lines = shown(searched(20), searched(24)).splitlines()
    assert lines[0] == "these plans are not for the same machine:"
    assert lines[2].split()[:4] == ["GPU", "free", "20.0", "GiB"]


def test_rates_stand_with_their_units_and_how_much_they_differ(shown) -> None:
    lines = shown(searched(20), searched(20, link=5e9)).splitlines()
    link = next(line.split() for line in lines if line.startswith("rate  pinned h2d"))
    assert link[:3] == ["rate", "pinned", "h2d"]
    assert link[5:7] == ["5.00", "GB/s"]
    assert link[7].startswith("−")
    assert link[8] == "GB/s"


def test_a_component_that_only_one_plan_has_is_one_line() -> None:
    decided = found(diff_plans(searched(60), searched(60, parts=PARTS[1:])).decisions)
    assert decided["transformer", "component"] == (searched(60).components["transformer"].strategy, None)


def test_a_change_of_strategy_leaves_out_the_parameters_of_one_side(shown) -> None:
    text = shown(searched(20), searched(20, "transformer=component-offload"))
    assert "prefetch" not in text
    assert "layerwise-offload" in text


def test_a_rule_plan_has_no_figures_to_compare(shown) -> None:
    text = shown(searched(), ruled())
    assert ["predicted", "prediction", "yes", "no"] in [line.split() for line in text.splitlines()]
    assert "predicted  first" not in text


def test_trials_of_both_plans_are_compared() -> None:
    times = [
        Measured(
            source="trial", device_kind="emulated", when="2026-01-02T03:04:05Z", rounds=2, trial_steps=4,
            step_s=StepTimes(mean=mean, sd=None, n=4), load_s=None, total_s=40 * mean, peak_bytes=None,
            reserved_bytes=None, host_peak_bytes=None, digest=None, candidate="searched plan", rivals=[],
        )
        for mean in (1.5, 1.25)
    ]  # fmt: skip
    before, after = (searched().model_copy(update={"measured": each}) for each in times)
    figures = found(diff_plans(before, after).figures)
    assert figures == {("measured", "step_s"): (1.5, 1.25), ("measured", "total_s"): (60.0, 50.0)}


def test_json_is_one_object_with_plain_numbers(shown) -> None:
    document = json.loads(shown(searched(20), searched(24), "--json"))
    assert (document["schema"], document["same_model"], document["same_machine"]) == (1, True, False)
    peak = next(each for each in document["figures"] if each["what"] == "peak_bytes" and each["about"] == "predicted")
    assert isinstance(peak["before"], int)
    assert peak["unit"] == "bytes"


def test_a_file_that_is_no_plan_is_one_line_and_exit_code_2(tmp_path: Path, capsys) -> None:
    (tmp_path / "a.yaml").write_text(plan_to_yaml(searched()), encoding="utf-8")
    (tmp_path / "b.yaml").write_text(plan_to_yaml(searched())[:500], encoding="utf-8")
    assert run(["diff", f"{tmp_path}/a.yaml", f"{tmp_path}/b.yaml"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "b.yaml" in captured.err
