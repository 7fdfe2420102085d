"""What a plan says of others beside it: each sentence from its figures, and each figure from a simulation."""

from __future__ import annotations

from typing import Any

import pytest

from roost.plan.figures import Binding, MoreGenerations, MoreMemory, OtherPlan, PlanComparison
from roost.planner.by_search import plan_by_search
from roost.planner.cost.costs import CostModel
from roost.planner.search.columns import Aim
from roost.planner.search.reasons import notes_of
from roost.planner.search_question import SearchQuestion
from roost.units import GiB
from traces import rates, trace, use
from worlds import component, inventory, machine, question

TERA = 10**12


def other(gain: float, total_s: float = 100.0, short_bytes: int = 0, **differs: str) -> OtherPlan:
    return OtherPlan(total_s=total_s, gain=gain, short_bytes=short_bytes, differs=differs)


def notes(**changes: Any) -> list[str]:
    """All but what binds of a comparison of which ``changes`` are known."""
    nothing = {"more_memory": [], "model_offload": other(0.5), "runner_up": None, "all_resident": None, "binds": []}
    return notes_of(PlanComparison(**{**nothing, **changes}), {"transformer": "layerwise-offload"})


@pytest.mark.parametrize(
    ("offload", "said"),
    [
        (other(0.5), "50% faster than model offload: 50.0 s instead of 100.0 s, each with loading."),
        (other(0.021), "2% faster than model offload: 97.9 s instead of 100.0 s, each with loading."),
        (other(0.019), "under 2 % faster than model offload: don't bother."),
        (other(0.5, short_bytes=GiB), "model offload would not fit: it needs 1.00 GiB more VRAM."),
    ],
)
def test_model_offload_is_worth_leaving_from_2_percent_on(offload: OtherPlan, said: str) -> None:
    assert notes(model_offload=offload) == [said]


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        (other(0.5, vae="resident"), "50.0 s slower (100.0%), with vae resident"),
        (other(0.2), "20.0 s slower (25.0%)"),
        (other(0.0005), "50 ms slower (under 0.1%)"),
        (other(-0.25), "25.0 s faster (20.0%), but less simple"),
    ],
)
def test_the_runner_up_is_so_much_slower_than_the_plan(beside: OtherPlan, said: str) -> None:
    assert notes(runner_up=beside)[1:] == [f"runner-up: {said}."]


def test_more_memory_saves_a_share_of_the_plan() -> None:
    more = MoreMemory(memory="VRAM", bytes=2 * GiB, saves_s=5.0, stage="decode")
    assert notes(more_memory=[more])[1:] == ["2 GiB more VRAM would save 5.0 s (10.0%), in decode."]
    assert notes(binds=[Binding(what="link", stage="decode")])[1:] == ["binds: link in decode."]


VAE = component("vae", GiB // 2, position=1)


def planned(free_gib: float, blocks: int = 4, link: float = 20e9, generations: int = 1) -> PlanComparison:
    """What there is beside the plan of a transformer of so many blocks."""
    dit = component("transformer", 28 * GiB, blocks=blocks)
    calls = trace((use(dit, 50 * TERA, GiB), 40), (use(VAE, 60 * TERA, 2 * GiB, "decode"), 1), steps=40)
    made = SearchQuestion(
        question=question(inventory(dit, VAE), machine(free_gib), workload=calls.workload),
        trace=calls,
        model=CostModel(rates=rates(link), backend="cuda"),
        aim=Aim(),
        generations=generations,
    )
    found = plan_by_search(made).compared
    assert found is not None
    return found


def test_a_memory_binds_where_more_of_it_is_worth_having_and_a_roomy_plan_has_only_a_pace() -> None:
    bound = [[each.what for each in found.binds] for found in (planned(60), planned(12, blocks=16, link=2e9))]
    assert bound == [["link"], ["link", "VRAM"]]


def test_model_offload_moves_everything_in_every_generation() -> None:
    once, twice = (planned(60, generations=count).model_offload for count in (1, 2))
    moved_s = 28.5 * GiB / 10e9  # pageable: half the link's rate
    computed_s = (40 * 50 + 60) / 100
    assert twice.total_s - once.total_s == pytest.approx(computed_s + 2 * moved_s, rel=0.02)  # in and back


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("resident", "(transformer resident)"),
        ("layerwise-offload", "(transformer layerwise-offload with its weights elsewhere)"),
    ],
)
def test_what_more_generations_would_choose_is_otherwise_than_the_plan(strategy: str, said: str) -> None:
    many = MoreGenerations(generations=8, load_s=2.0, next_s=1.0, differs={"transformer": strategy})
    assert any(said in note for note in notes(more_generations=many))
