"""What would fit: smaller workloads as families take them, each verified with a trace of its own."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from roost import make_plan
from roost.facts.model import Inventory
from roost.facts.request import Choices, Workload
from roost.planner.by_search import plan_by_search
from roost.planner.cost.costs import CostModel
from roost.planner.rules.selectors import parse_set
from roost.planner.search.columns import Aim
from roost.planner.search.remedies.smaller import amount, option
from roost.planner.search_question import SearchQuestion
from roost.trace import Trace, VaeVariant
from roost.units import GiB
from traces import rates, trace, use
from worlds import component, inventory, machine, question

pytestmark = pytest.mark.long

PARTS = (component("transformer", 8 * GiB, blocks=10), component("vae", GiB // 2, position=1))
VIDEO = Workload(width=1280, height=720, frames=81, steps=4, batch=1, guidance=None)


def traced(workload: Workload, fixed_bytes: int = 0) -> Trace:
    """A decode that needs 16 GiB at 1280 × 720 × 81 frames, beside what it needs at any size."""
    share = workload.batch * amount(workload, "size") * (workload.frames or 1) / (1280 * 720 * 81)
    decode = use(PARTS[1], 10**12, fixed_bytes + int(share * 16 * GiB), "decode")
    return replace(trace((use(PARTS[0], 10**12, GiB), 4), (decode, 1)), workload=workload)


def asked(free_gib: float, workload: Workload = VIDEO, fixed_bytes: int = 0, **changes: object) -> SearchQuestion:
    made = SearchQuestion(
        question=question(inventory(*PARTS), machine(free_gib, headroom_gib=1), workload=workload),
        trace=traced(workload, fixed_bytes),
        model=CostModel(rates=rates(), backend="emulated"),
        aim=Aim(),
        trace_other=lambda other: traced(other, fixed_bytes),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def would_fit(question: SearchQuestion) -> list[str]:
    plan = plan_by_search(question)
    assert not plan.fits
    return plan.budget.would_fit


def test_what_is_named_fits_when_it_is_asked_for() -> None:
    workload = replace(VIDEO, batch=2)
    named = would_fit(asked(22, workload))
    kinds = [each.split()[0] for each in named]
    assert kinds == ["--batch", "--size", "--frames", "--vram"]
    width, height = map(int, named[1].split()[1].split("x"))
    for changed in (
        replace(workload, batch=1),
        replace(workload, width=width, height=height),
        replace(workload, frames=int(named[2].split()[1])),
    ):
        assert plan_by_search(asked(22, changed)).fits


def test_a_need_that_does_not_shrink_with_the_frames_takes_a_second_look() -> None:
    """At 14 GiB, 8 of 16 are there at any size: a proportional guess fails, a line through two points finds it."""
    named = would_fit(asked(14, fixed_bytes=8 * GiB))
    (frames,) = (int(each.split()[1]) for each in named if each.startswith("--frames"))
    assert plan_by_search(asked(14, replace(VIDEO, frames=frames), fixed_bytes=8 * GiB)).fits
    assert not plan_by_search(asked(14, replace(VIDEO, frames=frames + 8), fixed_bytes=8 * GiB)).fits


FEW = (component("transformer", 8 * GiB, blocks=4), PARTS[1])


def with_few_blocks(free_gib: float, decode_bytes: int, **changes: object) -> SearchQuestion:
    return asked(
        free_gib,
        question=question(inventory(*FEW), machine(free_gib), workload=VIDEO),
        trace=few_traced(VIDEO, decode_bytes),
        **changes,
    )


def few_traced(workload: Workload, decode_bytes: int) -> Trace:
    decode = use(FEW[1], 10**12, decode_bytes, "decode")
    return replace(trace((use(FEW[0], 10**12, GiB), 4), (decode, 1)), workload=workload)


def test_a_need_that_falls_slower_than_any_line_is_given_up_after_the_second_look() -> None:
    looks: list[Workload] = []

    def stubborn(other: Workload) -> Trace:
        looks.append(other)
        return few_traced(other, int((12.9 if len(looks) % 2 else 12.7) * GiB))  # and 12.5 GiB are free

    assert [each.split()[0] for each in would_fit(with_few_blocks(14, 16 * GiB, trace_other=stubborn))] == ["--vram"]
    assert len(looks) == 4  # two smaller sizes, and two of fewer frames


def test_tiling_that_was_forbidden_is_named_where_it_would_mend() -> None:
    tiled = VaeVariant(use=1, setting="tiled", trace=use(FEW[1], 10**12, GiB, "decode"))
    made = with_few_blocks(12, 16 * GiB, trace_other=None, aim=Aim(forbid=frozenset({"tiling"})))
    made = replace(made, trace=replace(made.trace, variants=(tiled,)))
    assert would_fit(made)[0] == "without --forbid tiling (tiling changes bits)"


def in_float32(free_gib: float, fixed_gib: float = 0, **changes: object) -> SearchQuestion:
    """A VAE whose decode takes 16 GiB in float32 and half of that in another dtype, so many of them at any size."""
    looks: list[str] = []

    def of(dtype: str, share: float) -> SearchQuestion:
        def traced_at(other: Workload) -> Trace:
            size = amount(other, "size") / amount(VIDEO, "size")
            return few_traced(other, int(share * (fixed_gib + (16 - fixed_gib) * size) * GiB))

        parts = (FEW[0], replace(FEW[1], load_dtype=dtype))
        asked_for = question(inventory(*parts), machine(free_gib, headroom_gib=1), workload=VIDEO)
        return asked(free_gib, question=asked_for, trace=traced_at(VIDEO), trace_other=traced_at, **changes)

    def loaded_as(dtype: str) -> SearchQuestion:
        looks.append(dtype)
        assert len(looks) == 1  # it takes a dry run
        return of(dtype, 0.5)

    return replace(of("float32", 1.0), loaded_as=loaded_as)


def test_a_dtype_is_named_where_what_is_short_computes_in_float32() -> None:
    named = would_fit(in_float32(12))
    assert named[0] == "--dtype bfloat16 (vae no longer in float32)"
    assert [each.split()[0] for each in named] == ["--dtype", "--size", "--vram"]


def test_a_card_without_bfloat16_is_offered_float16() -> None:
    lacking = CostModel(rates=rates(), backend="emulated", single_dtypes=frozenset({"float32", "bfloat16"}))
    assert would_fit(in_float32(12, model=lacking))[0].startswith("--dtype float16 ")


def test_a_dtype_is_not_looked_at_where_something_else_is_short() -> None:
    def never(dtype: str) -> SearchQuestion:
        raise AssertionError(dtype)

    assert would_fit(asked(12, loaded_as=never))  # in bfloat16 already
    parts = (replace(PARTS[0], load_dtype="float32"), PARTS[1])  # and the VAE is short
    other = question(inventory(*parts), machine(12, headroom_gib=1), workload=VIDEO)
    assert would_fit(asked(12, question=other, loaded_as=never))


def test_where_neither_is_enough_a_dtype_and_a_smaller_size_are_named_together() -> None:
    made = in_float32(7.5, fixed_gib=8)
    named = would_fit(made)
    assert [each.split()[0] for each in named] == ["--dtype", "--vram"]
    together = re.fullmatch(r"--dtype bfloat16 --size (\d+)x(\d+) \(vae no longer in float32\)", named[0])
    assert together
    width, height = map(int, together.groups())
    retyped = in_float32(7.5, fixed_gib=8).loaded_as("bfloat16")
    size = replace(VIDEO, width=width, height=height)
    made, retyped = (replace(each, seek_remedies=False) for each in (made, retyped))
    assert not plan_by_search(retyped).fits
    assert plan_by_search(replace(retyped, trace=retyped.trace_other(size))).fits
    assert not plan_by_search(replace(made, trace=made.trace_other(replace(VIDEO, width=320, height=180)))).fits


def test_forbidden_tiles_and_a_smaller_size_are_named_together_where_neither_is_enough() -> None:
    def tiled_trace(workload: Workload) -> Trace:
        size = amount(workload, "size") / amount(VIDEO, "size")
        tiled = VaeVariant(use=1, setting="tiled", trace=use(FEW[1], 10**12, int((1 + 7 * size) * GiB), "decode"))
        return replace(few_traced(workload, 16 * GiB), variants=(tiled,))

    forbidding = Aim(forbid=frozenset({"tiling"}))
    made = replace(with_few_blocks(8, 16 * GiB, trace_other=tiled_trace, aim=forbidding), trace=tiled_trace(VIDEO))
    named = would_fit(made)
    assert named[0].startswith("without --forbid tiling --size ")


def test_remedies_take_a_few_dry_runs_at_the_most() -> None:
    runs: list[object] = []

    def stubborn(other: Workload) -> Trace:
        runs.append(other)
        return few_traced(other, int((12.9 if len(runs) % 2 else 12.7) * GiB))

    def loaded_as(dtype: str) -> SearchQuestion:
        runs.append(dtype)
        return with_few_blocks(14, int(15.9 * GiB), trace_other=stubborn)

    parts = (FEW[0], replace(FEW[1], load_dtype="float32"))
    made = with_few_blocks(14, 16 * GiB, trace_other=stubborn, loaded_as=loaded_as)
    made = replace(made, question=question(inventory(*parts), machine(14), workload=VIDEO))
    assert [each.split()[0] for each in would_fit(made)] == ["--vram"]
    assert runs[0] == "bfloat16"
    assert len(runs) == 5  # of the six that two smaller sizes and two of fewer frames of each would take, and more


CAST = component("transformer", 8 * GiB, blocks=40, bytes_by_dtype={"F32": 8 * GiB})  # its masters can't be mapped


def both_short(free_gib: float, ram_gib: float, *sets: str) -> SearchQuestion:
    choices = Choices(sets=tuple(map(parse_set, sets)))
    little = machine(free_gib, ram_gib=ram_gib)
    return asked(free_gib, question=question(inventory(CAST, PARTS[1]), little, choices, workload=VIDEO))


def test_where_vram_and_host_memory_are_short_both_are_named_and_each_remedy_mends_both() -> None:
    short = both_short(12, 4)
    plan = plan_by_search(short)
    assert not plan.fits
    assert "VRAM is" in plan.budget.verdict_alone
    assert "With enough of it host memory is" in plan.budget.verdict_alone
    assert ", and host memory is" in plan.budget.lacks
    assert plan.budget.would_fit
    for named in plan.budget.would_fit:
        assert "--ram " in named
    vram, ram = re.fullmatch(r"--vram ([\d.]+)GiB --ram ([\d.]+)GiB \(.*\)", plan.budget.would_fit[-1]).groups()
    host_gib = float(ram) - 2 - 2  # the system's and the process's own
    assert plan.budget.host_deficit_bytes > 0 < plan.budget.deficit_bytes
    assert plan_by_search(both_short(float(vram), host_gib)).fits
    assert not plan_by_search(both_short(float(vram), 4)).fits
    assert not plan_by_search(both_short(12, host_gib)).fits


def test_a_little_less_headroom_and_more_host_memory_mend_both() -> None:
    assert would_fit(both_short(17.2, 4))[0].startswith("--headroom ")


def test_typed_masters_that_cannot_be_pinned_say_so() -> None:
    plan = plan_by_search(both_short(40, 9, "transformer=layerwise-offload,pinned=40"))
    assert plan.budget.verdict_alone.count("pinned memory is") == 1
    assert plan.budget.would_fit[0] == "without --set transformer=layerwise-offload,pinned=40"
    assert plan.budget.would_fit[-1].startswith("--ram ")


def test_a_little_less_headroom_is_named_when_that_is_all() -> None:
    named = would_fit(asked(17.2))
    assert named[0].startswith("--headroom ")
    headroom_gib = int(named[0].removeprefix("--headroom ").removesuffix("MiB")) / 1024
    fitting = asked(17.2)
    smaller_headroom = replace(fitting.question.machine, headroom_bytes=int(headroom_gib * GiB))
    assert plan_by_search(replace(fitting, question=replace(fitting.question, machine=smaller_headroom))).fits


def test_smaller_workloads_are_named_only_when_they_can_be_traced() -> None:
    for trace_other in (None, lambda workload: None):
        assert [each.split()[0] for each in would_fit(asked(12, trace_other=trace_other))] == ["--vram"]


def test_a_model_whose_weights_are_too_much_is_not_traced_again() -> None:
    def never(workload: Workload) -> Trace:
        raise AssertionError(f"{option(workload, 'size')} can't fit")

    assert would_fit(asked(1.2, trace_other=never)) == [would_fit(asked(1.2))[0]]


def test_no_remedies_are_sought_when_none_are_wanted() -> None:
    assert would_fit(asked(12, seek_remedies=False)) == []


def test_a_models_dtype_is_named_as_a_whole_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the VAE of this model loads in float32; asked for in bfloat16, it is inspected and dry-run anew."""
    looks: list[str] = []

    def made_up(model: Inventory, _: object, workload: Workload) -> Trace:
        parts = {each.name: each for each in model.components}
        looks.append(str(parts["vae"].load_dtype))
        decode = use(parts["vae"], 10**12, (12 if looks[-1] == "float32" else 6) * GiB, "decode")
        return replace(trace((use(parts["transformer"], 10**12, GiB), 4), (decode, 1)), workload=workload)

    for module in ("roost.api.plans.plan", "roost.api.models.traces"):
        monkeypatch.setattr(f"{module}.trace_model", made_up)
    monkeypatch.setattr("roost.api.plans.plan.kept_trace", lambda *_: None)
    plan = make_plan("wan2.2-ti2v-5b", gpu="rtx-3060", ram="64GiB", measured=False)
    command = "roost plan wan2.2-ti2v-5b --gpu rtx-3060 --ram 64GiB --no-measured --dtype bfloat16"
    assert plan.budget.would_fit[0] == f"{command}  # vae no longer in float32"
    assert looks[:2] == ["float32", "bfloat16"]
    assert len(looks) <= 1 + 5
