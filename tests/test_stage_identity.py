"""A stage is known by its component and what that does, in older plans too, whatever it is called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from roost.api.plans.explain import explain_plan
from roost.api.plans.timeline import Replay, record_of
from roost.cli.commands.timeline import _page
from roost.plan import plan_to_yaml, read_plan
from roost.planner.cost.simulator import simulate
from roost.planner.documents.cost_model import cost_model_of
from roost.planner.documents.reader import forecast_of, placements_of
from roost.planner.search.reasons import why_of
from roost.units import GiB
from searched_plans import PARTS, STEPS, USES, searched
from traces import trace, use
from worlds import component


def test_what_limits_a_controlnet_is_said_of_an_older_plan_too(tmp_path: Path) -> None:
    control = component("controlnet", 4 * GiB, position=3)
    parts, uses = (*PARTS, control), (*USES, (use(control, 10**12, GiB), STEPS))
    document = searched(60, parts=parts, trace=trace(*uses, steps=STEPS))
    old = yaml.safe_load(plan_to_yaml(document))
    for each in (*old["predicted"]["stages"], *old["arithmetic"]["stages"]):
        del each["phase"]  # which a name alone told then: denoise, of a ControlNet too
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old), encoding="utf-8")
    pages = []
    for plan in (document, read_plan(tmp_path / "old.yaml")):
        forecast = forecast_of(plan, parts, trace(*uses, steps=STEPS), cost_model_of(plan.arithmetic))
        found = simulate(forecast.schedule(placements_of(plan, parts, forecast.trace)), record=True)
        pages.append(_page(plan, Replay(record=record_of(plan, found, parts), timeline=found, notes=())))
    assert "denoise (controlnet)" in pages[0]
    assert ">?<" not in pages[0]
    assert pages[1] == pages[0]


def test_stages_of_one_name_are_told_apart() -> None:
    plan = searched(20)
    assert plan.predicted is not None
    assert plan.arithmetic is not None
    parts = {
        "predicted": [each.model_copy(update={"name": "x"}) for each in plan.predicted.stages],
        "arithmetic": [each.model_copy(update={"name": "x"}) for each in plan.arithmetic.stages],
    }
    predicted, arithmetic = (getattr(plan, key).model_copy(update={"stages": parts[key]}) for key in parts)
    same = explain_plan(plan.model_copy(update={"predicted": predicted, "arithmetic": arithmetic}))
    for one, other in zip(explain_plan(plan).components, same.components, strict=True):
        assert other.if_resident == (one.if_resident and replace(one.if_resident, stage="x"))
    (streamed,) = (each for each in placements_of(plan, PARTS, trace(*USES, steps=STEPS)) if each.streaming)
    why = why_of(streamed, plan.predicted, plan.arithmetic, "seconds")
    assert why_of(streamed, predicted, arithmetic, "seconds") == why
