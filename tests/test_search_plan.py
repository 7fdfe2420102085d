"""The document of a searched plan: what it records, that it survives its file, and what it says when nothing fits."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml

from roost.api.requests.option_sets import PlanOptions
from roost.api.requests.options import aim_of
from roost.facts.request import Choices, Workload
from roost.plan import PlanDocument, plan_to_yaml
from roost.planner.by_rules import plan_by_rules
from roost.planner.by_search import plan_by_search
from roost.planner.cost.costs import CostModel
from roost.planner.cost.untraced import guessing, untraced
from roost.planner.rules.selectors import parse_set
from roost.planner.search.columns import Aim, Objective
from roost.planner.search_question import SearchQuestion
from roost.trace import VaeVariant, of_role
from roost.units import GiB
from traces import rates, trace, use
from worlds import component, inventory, machine, question

TERA = 10**12
LIKELY = Aim(certainty="likely")
PARTS = (
    component("transformer", 28 * GiB, blocks=32),
    component("text_encoder", 10 * GiB, blocks=8, position=1),
    component("vae", GiB // 2, position=2),
)
DECODE = use(PARTS[2], 60 * TERA, 6 * GiB, "decode")
CALLS = trace((use(PARTS[1], TERA, GiB // 4), 2), (use(PARTS[0], 50 * TERA, 2 * GiB), 80), (DECODE, 1), steps=40)
TILED = replace(CALLS, variants=(VaeVariant(use=2, setting="tiled", trace=use(PARTS[2], 90 * TERA, GiB, "decode")),))


def asked(free_gib: float, choices: Choices | None = None, ram_gib: float = 128, **changes) -> SearchQuestion:
    made = SearchQuestion(
        question=question(inventory(*PARTS), machine(free_gib, ram_gib=ram_gib), choices),
        trace=CALLS,
        model=CostModel(rates=rates(), backend="cuda"),
        aim=Aim(),
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def plan() -> PlanDocument:
    return plan_by_search(asked(20))


def test_it_says_what_others_read(plan: PlanDocument) -> None:
    document = plan.model_dump(mode="json", by_alias=True)
    assert {"source", "guessed", "seconds", "uses"} == set(document["trace"])
    assert set(document["trace"]["uses"][0]) == {
        "component", "method", "calls", "flops", "flops_by_class", "activation_bytes", "output_bytes",
    }  # fmt: skip
    predicted = document["predicted"]
    for name in ("peak_bytes", "step_s", "total_s", "first_total_s"):
        assert predicted[name]["low"] <= predicted[name]["mid"] <= predicted[name]["high"]
    assert set(predicted["stages"][0]) == {"name", "component", "phase", "seconds", "peak_bytes", "binding"}
    assert {"components", "predicted", "why_not"} <= set(document["alternatives"][0])


def test_it_survives_its_file(plan: PlanDocument) -> None:
    assert PlanDocument.model_validate(yaml.safe_load(plan_to_yaml(plan))) == plan


def test_the_same_question_has_the_same_answer(plan: PlanDocument) -> None:
    assert plan_by_search(asked(20)) == plan


def test_the_search_decides_what_was_not_typed_and_gives_its_reason(plan: PlanDocument) -> None:
    assert (plan.policy.name, plan.fits) == ("search", True)
    assert all(each.decided_by == "search" and each.why for each in plan.components.values())
    typed = plan_by_search(asked(20, Choices(sets=(parse_set("vae=component-offload"),))))
    assert typed.components["vae"].decided_by == "flag:--set vae=component-offload"
    assert typed.components["vae"].strategy == "component-offload"


def test_predicted_peak_stays_within_the_budget(plan: PlanDocument) -> None:
    assert plan.predicted is not None
    assert plan.predicted.peak_bytes.mid <= plan.budget.budget_bytes
    assert max(stage.peak_bytes for stage in plan.predicted.stages) == plan.predicted.peak_bytes.mid


def test_alternatives_name_the_rule_plan_and_everything_resident_with_why_not(plan: PlanDocument) -> None:
    reasons = {each.name: each.why_not for each in plan.alternatives}
    assert {"rule plan", "all resident"} <= set(reasons)
    assert re.fullmatch(r"needs [\d.]+ GiB more VRAM\.", reasons["all resident"])
    placed = next(each for each in plan.alternatives if each.name == "all resident")
    assert {each.strategy for each in placed.components.values()} == {"resident"}


def test_notes_say_what_else_there_was_and_what_binds(plan: PlanDocument) -> None:
    assert plan.predicted is not None
    begins = (
        "model offload would not fit",
        "runner-up: ",
        "all resident: needs",
        "2 GiB more VRAM would save",
        "binds:",
    )
    for begin in begins:
        assert any(note.startswith(begin) for note in plan.predicted.notes), begin
    roomy = plan_by_search(asked(78)).predicted
    assert roomy is not None
    assert not [note for note in roomy.notes if "more VRAM" in note]  # it would save nothing


def test_where_loading_outweighs_one_generation_it_says_what_several_would_choose(plan: PlanDocument) -> None:
    assert plan.compared is not None
    assert plan.compared.more_generations is None
    few = trace((use(PARTS[1], TERA, GiB // 4), 2), (use(PARTS[0], 50 * TERA, 2 * GiB), 2), (DECODE, 1), steps=1)
    once, often = (plan_by_search(asked(20, trace=few, generations=count)) for count in (1, 8))
    assert once.compared is not None
    many = once.compared.more_generations
    assert many is not None
    assert often.predicted is not None
    assert (many.generations, many.next_s) == (8, pytest.approx(often.predicted.next_s.mid))
    assert many.load_s == pytest.approx(often.predicted.load_s.mid)
    assert many.differs
    assert many.differs == {name: often.components[name].strategy for name in many.differs}


def test_more_vram_saves_what_planning_with_it_saves(plan: PlanDocument) -> None:
    assert plan.compared is not None
    (more,) = plan.compared.more_memory
    larger = plan_by_search(asked(22))
    assert plan.predicted is not None
    assert larger.predicted is not None
    assert (more.memory, more.bytes, more.stage) == ("VRAM", 2 * GiB, "denoise (transformer)")
    # Each plan may be 2 % behind the fastest of its machine.
    assert more.saves_s == pytest.approx(
        plan.predicted.total_s.mid - larger.predicted.total_s.mid, abs=0.02 * plan.predicted.total_s.mid
    )


def test_other_plans_are_compared_by_their_own_simulation() -> None:
    roomy = plan_by_search(asked(44, aim=LIKELY))
    assert roomy.compared is not None
    offload, resident = roomy.compared.model_offload, roomy.compared.all_resident
    assert set(offload.differs.values()) == {"component-offload"}
    typed = plan_by_search(
        asked(44, Choices(sets=tuple(parse_set(f"{name}=component-offload") for name in roomy.components)))
    )
    assert typed.predicted is not None
    assert roomy.predicted is not None
    assert offload.short_bytes == 0
    # Typed offloads may be pinned, which the diffusers' are not.
    assert offload.total_s >= typed.predicted.total_s.mid
    assert offload.gain == pytest.approx(1 - roomy.predicted.total_s.mid / offload.total_s)
    assert resident is not None
    everything = Choices(sets=tuple(parse_set(f"{name}=resident") for name in roomy.components))
    enough_gib = 44 + resident.short_bytes / GiB
    assert plan_by_search(asked(enough_gib + 0.01, everything)).fits
    assert not plan_by_search(asked(enough_gib - 0.01, everything)).fits


@pytest.mark.long
def test_scarce_host_memory_says_what_more_of_it_would_save() -> None:
    scarce = plan_by_search(asked(12, ram_gib=24))
    assert scarce.compared is not None
    more = {each.memory: each for each in scarce.compared.more_memory}
    assert more["host memory"].bytes is None
    ample = plan_by_search(asked(12, ram_gib=128))
    assert ample.predicted is not None
    assert scarce.predicted is not None
    saved_s = scarce.predicted.total_s.mid - ample.predicted.total_s.mid
    assert more["host memory"].saves_s == pytest.approx(saved_s, abs=0.02 * scarce.predicted.total_s.mid)
    assert saved_s > 0


def test_rules_find_the_same_components_with_the_same_bytes(plan: PlanDocument) -> None:
    ruled = plan_by_rules(asked(20).question)
    assert ruled.predicted is None
    assert {name: each.load_bytes for name, each in ruled.components.items()} == {
        name: each.load_bytes for name, each in plan.components.items()
    }


def test_tiling_is_taken_where_nothing_else_surely_fits() -> None:
    tiled = plan_by_search(asked(8, trace=TILED))
    assert (tiled.fits, tiled.certainty) == (True, "sure")
    assert tiled.components["vae"].tiling
    assert "changes bits" in tiled.components["vae"].why
    (change,) = tiled.changed_by_default
    assert (change.component, change.what) == ("vae", "tiling")


def test_tiling_that_is_forbidden_or_needless_is_not_taken() -> None:
    forbidden = plan_by_search(asked(8, trace=TILED, aim=Aim(forbid=frozenset({"tiling"}))))
    assert not forbidden.fits
    assert forbidden.certainty is None
    roomy = plan_by_search(asked(24, trace=TILED))
    assert not roomy.components["vae"].tiling
    assert not roomy.changed_by_default


def test_tiling_that_was_allowed_is_no_change_by_default() -> None:
    allowed = plan_by_search(asked(8, trace=TILED, aim=Aim(allow=frozenset({"tiling"}))))
    assert allowed.components["vae"].tiling
    assert not allowed.changed_by_default


@pytest.mark.long
def test_mode_memory_searches_for_the_least_peak_within_the_slowdown() -> None:
    fast = plan_by_search(asked(60))
    small = plan_by_search(asked(60, Choices(mode="memory"), aim=aim_of(PlanOptions(mode="memory"))))
    assert (small.policy.mode, small.policy.objective, small.policy.max_slowdown) == ("memory", "memory", 1.2)
    assert fast.policy.objective == "seconds"
    assert small.predicted.peak_bytes.mid < fast.predicted.peak_bytes.mid / 2
    total_s = [plan.predicted.load_s.mid + plan.predicted.first_s.mid for plan in (fast, small)]
    assert total_s[1] <= 1.2 * total_s[0]


@pytest.mark.parametrize(
    ("objective", "reason"),
    [("seconds", "and VRAM holds no more blocks worth having."), ("memory", "and the least memory was asked for.")],
)
def test_why_blocks_stream_over_a_slow_link_depends_on_what_was_asked_for(objective: Objective, reason: str) -> None:
    slow = CostModel(rates=rates(link=2e9), backend="cuda")
    plan = plan_by_search(asked(24, model=slow, aim=Aim(objective=objective)))
    assert plan.components["transformer"].why.endswith(reason)


def test_mode_memory_is_bound_by_what_was_typed() -> None:
    choices = Choices(mode="memory", sets=(parse_set("transformer=resident"),))
    plan = plan_by_search(asked(60, choices, aim=aim_of(PlanOptions(mode="memory"))))
    assert plan.components["transformer"].strategy == "resident"
    assert plan.components["text_encoder"].strategy != "resident"


def test_what_would_fit_is_named_and_really_fits() -> None:
    speed = Choices(mode="speed")
    refused = plan_by_search(asked(24, speed, trace=TILED))
    assert not refused.fits
    assert refused.budget.deficit_bytes > 0
    assert "Would fit: --mode auto; --vram" in refused.budget.verdict
    enough_gib = float(re.search(r"--vram ([\d.]+)GiB", refused.budget.verdict)[1])
    assert plan_by_search(asked(enough_gib, speed, trace=TILED)).fits
    assert not plan_by_search(asked(enough_gib - 0.2, speed, trace=TILED)).fits


def test_a_typed_option_in_the_way_is_named() -> None:
    refused = plan_by_search(asked(20, Choices(sets=(parse_set("dit=resident"),))))
    assert "without --set dit=resident" in refused.budget.verdict
    assert "--allow" not in refused.budget.verdict


def test_a_role_is_predicted_for_its_own_uses_only() -> None:
    encoder = of_role(TILED, ["text_encoder"])
    assert [each.component for each in encoder.uses] == ["text_encoder"]
    assert (encoder.sequence, encoder.variants) == (((0, 2),), ())
    made = asked(20)
    plan = plan_by_search(replace(made, question=replace(made.question, role="encoder")))
    assert plan.predicted is not None
    assert [stage.component for stage in plan.predicted.stages] == ["text_encoder"]


@pytest.mark.long
def test_generations_are_counted_with_one_load() -> None:
    once, often = plan_by_search(asked(20)).predicted, plan_by_search(asked(20, generations=10)).predicted
    assert once is not None
    assert often is not None
    expected = often.load_s.mid + often.first_s.mid + 9 * often.next_s.mid
    assert often.total_s.mid == pytest.approx(expected)
    assert once.total_s.mid == pytest.approx(once.first_total_s.mid)


def test_a_plan_without_a_trace_warns_and_is_less_sure(plan: PlanDocument) -> None:
    made = asked(30)
    workload = Workload(width=1024, height=1024, frames=17, steps=4, batch=1, guidance=1.0)
    guess = untraced(PARTS, workload, "no pipeline class " + "x" * 500)
    blind = plan_by_search(replace(made, trace=guess, model=guessing(made.model, PARTS)))
    assert any("no dry run (weights only: no pipeline class" in warning for warning in blind.warnings)
    assert blind.predicted is not None
    assert plan.predicted is not None
    assert blind.predicted.step_s.high / blind.predicted.step_s.low > 2
