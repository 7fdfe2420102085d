"""What surely would fit in place of a plan that may not: the same remedies, each tried by the search itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from roost.api.plans.commands import plan_command
from roost.api.requests.option_sets import PlanOptions
from roost.cli.views.plan import show_plan
from roost.facts.request import Workload
from roost.plan import plan_to_yaml, read_plan
from roost.planner.by_search import SearchQuestion, plan_by_search
from roost.planner.cost.costs import CostModel
from roost.planner.ruling import ruling_on
from roost.planner.search.columns import Aim
from roost.planner.search.remedies.smaller import amount
from roost.planner.slicing import surely_finds
from roost.trace import Trace, VaeVariant
from roost.units import GiB
from traces import rates, trace, use
from worlds import component, inventory, machine, question

PARTS = (component("transformer", 8 * GiB, blocks=10), component("vae", GiB // 2, position=1))
VIDEO = Workload(width=1280, height=720, frames=81, steps=4, batch=1, guidance=None)
LIKELY_GIB = 22  # the decode's 16 GiB likely fit beside the VAE, and more than that may be taken


def traced(workload: Workload, gib: float = 16) -> Trace:
    share = workload.batch * amount(workload, "size") * (workload.frames or 1) / (1280 * 720 * 81)
    decode = use(PARTS[1], 10**12, int(share * gib * GiB), "decode")
    return replace(trace((use(PARTS[0], 10**12, GiB), 4), (decode, 1)), workload=workload)


def asked(
    workload: Workload = VIDEO, dtype: str = "float32", free_gib: float = LIKELY_GIB, **changes: object
) -> SearchQuestion:
    """On CUDA, where activations, gaps and the context have intervals; in 16 bits the decode takes half."""
    gib = 16 if dtype == "float32" else 8
    parts = (PARTS[0], replace(PARTS[1], load_dtype=dtype))
    made = SearchQuestion(
        question=question(inventory(*parts), machine(free_gib, headroom_gib=1), workload=workload),
        trace=traced(workload, gib),
        model=CostModel(rates=rates(), backend="cuda"),
        aim=Aim(),
        trace_other=lambda other: traced(other, gib),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def certainty(question: SearchQuestion) -> str | None:
    return plan_by_search(replace(question, seek_remedies=False)).certainty


def test_what_is_named_surely_fits_when_it_is_asked_for() -> None:
    plan = plan_by_search(asked(loaded_as=lambda dtype: asked(dtype=dtype)))
    assert (plan.certainty, plan.budget.lacks) == ("likely", None)
    dtype, size, frames, vram = plan.budget.would_fit
    assert dtype == "--dtype bfloat16 (vae no longer in float32)"
    width, height = map(int, size.removeprefix("--size ").split("x"))
    gib = float(vram.removeprefix("--vram ").partition("GiB")[0])
    for changed in (
        asked(dtype="bfloat16"),
        asked(replace(VIDEO, width=width, height=height)),
        asked(replace(VIDEO, frames=int(frames.removeprefix("--frames ")))),
        asked(free_gib=gib),
    ):
        assert certainty(changed) == "sure"
    assert certainty(asked(free_gib=gib - 0.2)) == "likely"


def test_what_only_likely_fits_is_no_remedy() -> None:
    """In 16 bits the decode takes a little less, which is not enough to be sure."""
    other = replace(asked(dtype="bfloat16"), trace=traced(VIDEO, 15.9), trace_other=None)
    plan = plan_by_search(asked(loaded_as=lambda dtype: other, trace_other=None))
    assert certainty(other) == "likely"
    assert [each.split()[0] for each in plan.budget.would_fit] == ["--vram"]


def test_a_plan_that_surely_fits_looks_for_nothing() -> None:
    def never(_: object) -> None:
        raise AssertionError("a dry run for nothing")

    plan = plan_by_search(asked(free_gib=40, loaded_as=never, trace_other=never))
    assert (plan.certainty, plan.budget.would_fit) == ("sure", [])


@pytest.mark.parametrize("changes", [{"aim": Aim(certainty="likely")}, {"seek_remedies": False}])
def test_nothing_is_looked_for_where_nobody_asks_to_be_sure(changes: dict[str, object]) -> None:
    def never(_: object) -> None:
        raise AssertionError("a dry run for nothing")

    plan = plan_by_search(asked(loaded_as=never, trace_other=never, **changes))
    assert (plan.certainty, plan.budget.would_fit) == ("likely", [])


def test_the_premium_that_is_named_is_what_sureness_costs() -> None:
    tiled = VaeVariant(use=1, setting="tiled", trace=use(PARTS[1], 400 * 10**12, 2 * GiB, "decode"))
    slow = asked(trace=replace(traced(VIDEO), variants=(tiled,)))
    plan = plan_by_search(slow)
    assert plan.certainty == "likely"
    (named,) = plan.budget.would_fit
    premium = float(named.removeprefix("--max-premium "))
    assert any(named in each for each in plan.warnings)
    assert certainty(replace(slow, aim=Aim(max_premium=premium))) == "sure"
    assert certainty(replace(slow, aim=Aim(max_premium=premium - 0.02))) == "likely"


def test_slices_that_make_a_smaller_batch_sure_count() -> None:
    sliced = VaeVariant(use=1, setting="sliced", trace=use(PARTS[1], 10**12, 8 * GiB, "decode"))
    for variants, sure in (((sliced,), True), ((), False)):
        made = asked(trace=replace(traced(VIDEO), variants=variants))
        case = ruling_on(made.question).case
        assert surely_finds(case, made.forecast(case), made.aim) is sure


def test_the_screen_ends_with_the_cheapest_and_the_plan_keeps_all(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spell = plan_command("wan2.2-ti2v-5b", PlanOptions(gpu="rtx-3090"))
    plan = plan_by_search(asked(loaded_as=lambda dtype: asked(dtype=dtype), spell=spell))
    show_plan(plan)
    last, before = capsys.readouterr().out.splitlines()[:-3:-1]
    line = "roost plan wan2.2-ti2v-5b --gpu rtx-3090 --dtype bfloat16  # vae no longer in float32"
    assert last == f"would surely fit  {line}"
    assert before.startswith("warning: it may need ")
    assert len(plan.budget.would_fit) == 4
    (tmp_path / "plan.yaml").write_text(plan_to_yaml(plan), encoding="utf-8")
    assert read_plan(tmp_path / "plan.yaml") == plan
