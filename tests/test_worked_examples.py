"""docs/worked-examples.md says what planning says now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from roost.api.plans.plan import make_plan
from roost.cli.views.sweep import placement_in_short
from roost.errors import UsageError
from roost.units import format_bytes

DOCUMENT = Path(__file__).parents[1] / "docs" / "worked-examples.md"
MODELS = {"Wan2.2-T2V-A14B": "wan2.2-t2v-a14b", "FLUX.1-dev": "flux.1-dev", "Qwen-Image": "qwen-image"}


def rows() -> list:
    """Every row of the tables as (model, cells); the models that take long to dry-run are slow."""
    found, model = [], None
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## ([\w.-]+),", line):
            model = MODELS[heading[1]]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if model and len(cells) == 9 and cells[0] not in ("card", "---"):
            quick = model == "flux.1-dev" and cells[0].startswith("rtx")
            marks = () if quick else pytest.mark.slow
            found.append(pytest.param(model, cells, id=f"{model}-{cells[0]}", marks=marks))
    return found


def seconds(text: str) -> float:
    """A figure of ``format_seconds`` back in seconds."""
    units = {"ms": 1e-3, "s": 1.0, "min": 60.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+) (ms|min|s)", text))


def test_every_model_has_five_cards() -> None:
    assert len(rows()) == 5 * len(MODELS)


@pytest.mark.dealt(2)
@pytest.mark.parametrize(("model", "cells"), rows())
def test_a_row_is_what_planning_says(model: str, cells: list[str]) -> None:
    card, _, placement, load, first, step, limiter, peak, budget = cells
    plan = make_plan(model, gpu=card, ram="128GiB")
    assert plan.fits
    assert plan.predicted is not None
    assert placement_in_short(plan) == placement
    assert plan.predicted.limiter == limiter
    assert format_bytes(plan.budget.budget_bytes) == budget
    assert format_bytes(plan.predicted.peak_bytes.mid) == peak
    for shown, figure in (
        (load, plan.predicted.load_s),
        (first, plan.predicted.first_s),
        (step, plan.predicted.step_s),
    ):
        # As it is shown; and another version of a library may trace a few elementwise operations more or fewer.
        rounding = 0.0005 if shown.endswith("ms") else 0.5 if "min" in shown else 0.05
        assert seconds(shown) == pytest.approx(figure.mid, rel=0.01, abs=rounding)


def test_numbers_of_blocks_for_each_stack_are_in_order_of_use() -> None:
    """FLUX.1-dev's 19 double blocks run before its 38 single ones; by name they come after them."""
    plan = make_plan("flux.1-dev", gpu="rtx-4090", ram="128GiB", set="dit=layerwise-offload,resident_policy=0+30")
    assert (plan.components["transformer"].resident_blocks, plan.components["transformer"].slots) == (30, 2)
    with pytest.raises(UsageError, match="30\\+0 doesn't suit"):
        make_plan("flux.1-dev", gpu="rtx-4090", ram="128GiB", set="dit=layerwise-offload,resident_policy=30+0")
