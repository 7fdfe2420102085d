"""Layers below the blocks stream where whole blocks take too much: what is traced, planned, shown and run."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from dry_runs import tiny_directory, tiny_trace, trace_tiny_at_leaf_level
from live_pipelines import live_pipeline
from roost.api.plans.diff import diff_plans
from roost.api.plans.export.diffusers import diffusers_script
from roost.api.plans.export.sglang import sglang_command
from roost.api.plans.plan import make_plan, search_question
from roost.api.requests.option_sets import PlanOptions
from roost.blocks import block_names
from roost.cli.app import run
from roost.errors import UsageError
from roost.plan import PlanDocument, plan_to_yaml, read_plan
from roost.plan.fields import StackRecord
from roost.planner.by_search import plan_by_search
from roost.planner.search_question import SearchQuestion
from roost.units import GiB
from tiny_loras import lora_file

MODELS = ("flux", "wan2.2", "qwen-image", "sd3", "ltx")
TINY = {"gpu": "emulated", "ram": "16GiB", "headroom": 0, "size": (64, 64), "steps": 4, "measured": False}


def planned(name: str = "flux", **options: object) -> PlanDocument:
    return make_plan(tiny_directory(name), **{**TINY, "vram": "64MiB", **options})


@pytest.mark.parametrize("name", MODELS)
def test_a_trace_by_layers_has_the_work_of_one_by_blocks(name: str) -> None:
    fine, whole = trace_tiny_at_leaf_level(name), tiny_trace(name)
    assert [each.totals for each in fine.uses] == [each.totals for each in whole.uses]
    assert [each.activation_bytes.peak_bytes for each in fine.uses] == [
        each.activation_bytes.peak_bytes for each in whole.uses
    ]
    for one, other in zip(fine.uses, whole.uses, strict=True):
        if one.blocks != other.blocks:  # what comes between two layers is the first one's
            assert sum(each.totals["attention"].flops for each in one.blocks) == one.totals["attention"].flops
            assert sum(each.totals["matmul"].flops for each in one.blocks) >= sum(
                each.totals["matmul"].flops for each in other.blocks
            )


@pytest.mark.parametrize("name", MODELS)
def test_leaves_stand_in_the_order_of_use(name: str) -> None:
    placed = planned(name, set="transformer=layerwise-offload,leaf_level=true").components["transformer"]
    assert placed.leaf_level
    trace = trace_tiny_at_leaf_level(name)
    used = [block.name for use in trace.uses if use.component == "transformer" for block in use.blocks]
    names = block_names(tuple(each.stack for each in placed.stacks))
    order = [names[number] for number in placed.use_order] if placed.use_order else list(names)
    assert order == [each for each in dict.fromkeys(used) if each in names]


@cache
def _question(model: str, **options: object) -> SearchQuestion:
    asked = search_question(model, PlanOptions(measured=False, **options))  # type: ignore[arg-type]
    return replace(asked, seek_remedies=False, gives_back=True)


def test_layers_stream_where_whole_blocks_don_t_surely_fit() -> None:
    asked = _question("flux.2-klein-9b", gpu="rtx-4090", ram="128GiB", objective="memory", max_slowdown=2.0)
    whole = plan_by_search(replace(asked, at_leaf_level=None))
    fine = plan_by_search(asked)
    assert not whole.components["transformer"].leaf_level
    assert fine.components["transformer"].leaf_level
    assert fine.predicted is not None
    assert whole.predicted is not None
    assert fine.predicted.process_bytes.high < 0.95 * whole.predicted.process_bytes.high
    assert fine.predicted.first_total_s.mid < 1.05 * whole.predicted.first_total_s.mid
    for each in fine.components.values():
        assert each.leaf_level <= (each.strategy == "layerwise-offload")
    free = range(fine.predicted.process_bytes.high, whole.predicted.process_bytes.high + 2 * GiB, GiB // 8)
    short = next(
        each for each in (_with_free(asked, count) for count in free) if plan_by_search(each).certainty == "sure"
    )
    assert plan_by_search(replace(short, at_leaf_level=None)).certainty != "sure"
    assert any(each.leaf_level for each in plan_by_search(short).components.values())


def _with_free(asked: SearchQuestion, free_bytes: int) -> SearchQuestion:
    """The question for the least seconds on a card with so much free."""
    machine = asked.question.machine
    machine = replace(machine, gpu=replace(machine.gpu, free_bytes=free_bytes))
    aim = replace(asked.aim, objective="seconds")
    return replace(asked, aim=aim, question=replace(asked.question, machine=machine))


def test_where_whole_blocks_surely_fit_nobody_looks_below_them() -> None:
    asked = _question("flux.2-klein-9b", gpu="rtx-4090", ram="128GiB")

    def never(_: object) -> None:
        raise AssertionError("looked below the blocks")

    assert plan_by_search(replace(asked, at_leaf_level=never)).certainty == "sure"


@pytest.mark.parametrize(
    "options",
    [
        {"set": "transformer=layerwise-offload,resident_blocks=1"},
        {"set": "transformer=layerwise-offload,leaf_level=false"},
        {"dit_offload_prefetch_size": 1},
    ],
    ids=str,
)
def test_what_was_typed_in_blocks_stays_in_blocks(options: dict[str, object]) -> None:
    plan = planned(objective="memory", max_slowdown=100.0, **options)
    assert not plan.components["transformer"].leaf_level


@pytest.mark.parametrize("component", ["vae", "all"])
def test_leaf_level_of_what_has_no_such_layers_is_refused(component: str) -> None:
    with pytest.raises(UsageError, match="component 'vae' can't stream below its blocks; set leaf_level on denoisers"):
        planned(set=f"{component}=layerwise-offload,leaf_level=true")


def test_a_plan_by_layers_is_read_back_told_apart_and_exported(tmp_path: Path) -> None:
    fine = planned(set="transformer=layerwise-offload,leaf_level=true,resident_blocks=3")
    whole = planned(set="transformer=layerwise-offload")
    (tmp_path / "plan.yaml").write_text(plan_to_yaml(fine))
    assert read_plan(tmp_path / "plan.yaml") == fine
    (found,) = (each for each in diff_plans(whole, fine).decisions if each.what == "leaf_level")
    assert (found.before, found.after) == (False, True)
    assert "pipe.transformer, onload_device" in diffusers_script(fine).text
    assert 'offload_type="leaf_level"' in diffusers_script(fine).text
    assert any("layer by layer" in note for note in sglang_command(fine).notes)
    assert "--layerwise-resident-layers" not in sglang_command(fine).text


@pytest.mark.parametrize(("name", "component"), [("qwen-image", "text_encoder"), ("wan2.2", "transformer_2")])
def test_a_stack_that_nothing_calls_streams_all_the_same(name: str, component: str) -> None:
    asked = {"set": f"{component}=layerwise-offload,leaf_level=true", "steps": 1}
    fine, whole = planned(name, **asked), planned(name, set=f"{component}=layerwise-offload", steps=1)
    assert [each.name for each in fine.components[component].stacks] == [
        each.name for each in whole.components[component].stacks
    ]
    assert fine.components[component].trunk_bytes < 1.5 * whole.components[component].trunk_bytes


def test_where_nothing_fits_what_lacks_less_is_told_and_its_remedy_fits() -> None:
    options = {"gpu": "rtx-4090", "ram": "128GiB", "measured": False, "set": "vae=snapshot-offload,tiling=true"}
    plan = make_plan("flux.2-klein-9b", vram="3GiB", headroom=0, **options)
    assert not plan.fits
    (wanted,) = (each for each in plan.budget.would_fit if "--vram" in each)
    vram = wanted.split("--vram ")[1].split()[0]
    assert make_plan("flux.2-klein-9b", vram=vram, headroom=0, **options).fits
    asked = search_question("flux.2-klein-9b", PlanOptions(vram="3GiB", headroom=0, **options))  # type: ignore[arg-type]
    whole = plan_by_search(replace(asked, at_leaf_level=None, seek_remedies=False))
    assert whole.budget.deficit_bytes > plan.budget.deficit_bytes


def test_loras_beside_weights_are_in_the_layers_that_they_belong_to(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    lora = lora_file(tmp_path / "a.safetensors", live_pipeline("flux"), {"transformer": ("to_q", "to_v")})
    options = {"lora": f"{lora}:1", "fuse": False}
    inventory = search_question(
        tiny_directory("flux"), PlanOptions(**{**TINY, "vram": "64MiB", **options})
    ).question.inventory
    component = inventory.component("transformer")
    in_units, in_leaves = (
        sum(sum(each.kept_bytes) for each in stacks) for stacks in (component.units, component.leaves)
    )
    assert in_units == in_leaves > 0


def test_a_cache_that_runs_the_first_block_runs_all_of_its_layers() -> None:
    options = {"cache": "first-block=0.1", "steps": 8}
    fine = planned(set="transformer=layerwise-offload,leaf_level=true", **options)
    whole = planned(set="transformer=layerwise-offload", **options)
    assert fine.predicted is not None
    assert whole.predicted is not None
    assert fine.predicted.cached_s is not None
    assert whole.predicted.cached_s is not None
    assert fine.predicted.cached_s.low == pytest.approx(whole.predicted.cached_s.low, rel=0.1)


@pytest.mark.parametrize("wrong", ["attn.nope", "attn"])
def test_layers_that_the_model_lacks_are_one_line(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = plan_to_yaml(planned(set="transformer=layerwise-offload,leaf_level=true"))
    (tmp_path / "plan.yaml").write_text(text.replace("- attn.to_q\n", f"- {wrong}\n"))
    for words in (
        ["run", "--prompt", "x", "-o", str(tmp_path / "x.png")],
        ["timeline", "-o", str(tmp_path / "t.html")],
    ):
        assert run([words[0], str(tmp_path / "plan.yaml"), *words[1:]]) == 4
        error = capsys.readouterr().err
        assert error.startswith("error: ") or "\nerror: " in error
        assert "unexpected" not in error


@pytest.mark.parametrize("count", [2, 5])
def test_leaves_that_don_t_make_whole_blocks_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="3 leaves of each block"):
        StackRecord(name="blocks", count=count, bytes=1, leaves=["a", "b", "c"])


def test_the_timeline_of_a_plan_by_layers_is_simulated_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = planned(set="transformer=layerwise-offload,leaf_level=true")
    (tmp_path / "plan.yaml").write_text(plan_to_yaml(fine))
    assert run(["timeline", str(tmp_path / "plan.yaml"), "-o", str(tmp_path / "t.json"), "--json"]) == 0
    assert "transformer_blocks.0.attn.to_q" in (tmp_path / "t.json").read_text()
