"""Attention by the kernel that computes it: what a dry run records of it, and what share of the rate each has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dry_runs import tiny_directory, tiny_trace
from roost.api.machine import gpu_of_profile
from roost.api.plans.plan import make_plan
from roost.facts.rates import RateKey
from roost.plan import plan_to_yaml, read_plan
from roost.plan.figures import Rate
from roost.plan.shares import AttentionShares
from roost.planner.cost.attention import attention_shares, slowdown
from roost.planner.cost.rates import rates_of
from roost.profiles.gpus import load_gpu_profiles
from roost.trace import AttentionWork, trace_from_json, trace_to_json

PROFILES = load_gpu_profiles()
PLAIN = AttentionWork(masked=False, head_width=128, dtype="bfloat16", flops=10**15)
MASKED, NARROW = replace(PLAIN, masked=True), replace(PLAIN, head_width=64)


def slower(work: AttentionWork, gpu: str, backend: str | None = None) -> float:
    profile = PROFILES[gpu]
    speeds = rates_of(gpu_of_profile(profile), profile).at("mid")
    shares = attention_shares(profile, backend)
    return slowdown([work], shares, speeds, "mid", single=False, single_dtypes=frozenset({"float32"}))


def test_flash_takes_no_mask_and_narrow_heads_cost_more() -> None:
    for gpu in ("rtx-4090", "a100-80gb", "h100-sxm", "rtx-5090"):
        assert slower(PLAIN, gpu) == 1.0
        assert slower(MASKED, gpu) > 1.2
        assert slower(NARROW, gpu) > 1.0
        assert slower(replace(PLAIN, head_width=512), gpu) > 1.5


def test_a_width_that_the_kernel_pads_costs_its_padding() -> None:
    assert slower(replace(PLAIN, head_width=72), "rtx-4090") == pytest.approx(96 / 72)


def test_the_plans_backend_says_which_kernel() -> None:
    assert slower(PLAIN, "h100-sxm", "_flash_3") < 0.8
    assert slower(PLAIN, "h100-sxm", "_native_cudnn") < 0.8
    assert slower(PLAIN, "a100-80gb", "_native_cudnn") == 1.0
    assert slower(MASKED, "a100-80gb", "flash") == 1.0
    assert slower(PLAIN, "a100-80gb", "xformers") == slower(MASKED, "a100-80gb")
    assert slower(PLAIN, "a100-80gb", "_native_math") > 5
    assert slower(PLAIN, "a100-80gb", "sage_hub") < 1


def test_hopper_may_take_cudnns_kernel_by_itself() -> None:
    hopper, ampere = attention_shares(PROFILES["h100-sxm"]), attention_shares(PROFILES["a100-80gb"])
    assert isinstance(hopper, AttentionShares)
    assert isinstance(ampere, AttentionShares)
    assert hopper.plain.high > 1.2
    assert ampere.plain.high == 1.0


def test_one_kernel_computes_all_where_there_is_no_flash_attention() -> None:
    assert attention_shares(None) is None
    assert attention_shares(PROFILES["rtx-2080-ti"]) is None
    assert slower(MASKED, "rtx-2080-ti") == 1.0


def test_an_old_trace_names_no_kernels_and_has_the_rate() -> None:
    profile = PROFILES["a100-80gb"]
    speeds = rates_of(gpu_of_profile(profile), profile).at("mid")
    assert slowdown([], attention_shares(profile), speeds, "mid", single=False, single_dtypes=frozenset()) == 1.0


def test_a_link_known_only_by_the_cards_name_may_be_slower_than_one_that_was_read() -> None:
    profile = PROFILES["rtx-5090"]
    named = gpu_of_profile(profile)
    supposed = rates_of(named, profile)[RateKey.PINNED_H2D]
    read = rates_of(replace(named, named=False), profile)[RateKey.PINNED_H2D]
    assert supposed.value == read.value
    assert supposed.at("slow") < 30e9 < read.at("slow")
    assert supposed.at("fast") == read.at("fast")


def test_pageable_copies_hold_what_published_offloads_took() -> None:
    profile = PROFILES["h100-sxm"]
    rates = rates_of(gpu_of_profile(profile), profile)
    both_ways = {
        level: 2 / (1 / rates[RateKey.PAGEABLE_H2D].at(level) + 1 / rates[RateKey.PAGEABLE_D2H].at(level))
        for level in ("slow", "fast")
    }
    assert both_ways["slow"] <= 1.6e9
    assert both_ways["fast"] >= 8.4e9


def test_a_rate_without_a_lower_end_of_its_own_reaches_as_far_down_as_up() -> None:
    rate = Rate(value=100.0, spread=2.0, source="spec", why="a test")
    assert (rate.at("slow"), rate.at("fast")) == (50.0, 200.0)
    assert replace(rate, down=4.0).at("slow") == 25.0


def test_a_dry_run_says_what_its_attention_is_passed() -> None:
    trace = tiny_trace("wan2.2")
    works = {use.component: use.attention for use in trace.uses if use.attention}
    assert all(not each.masked for each in works["transformer"])
    assert {each.dtype for each in works["transformer"]} == {"bfloat16"}
    for use in trace.uses:
        assert sum(each.flops for each in use.attention) == use.totals["attention"].flops


def test_a_trace_of_before_reads_as_one_that_names_no_kernels() -> None:
    document = trace_to_json(tiny_trace("wan2.2"))
    for use in document["uses"]:
        del use["attention"]
    assert all(use.attention == () for use in trace_from_json(document).uses)


def test_a_plan_says_its_shares_and_reads_back_equal(tmp_path: Path) -> None:
    options = {"ram": "8GiB", "size": "64x64", "frames": 5, "steps": 2, "measured": False}
    plan = make_plan(tiny_directory("wan2.2"), gpu="h100-sxm", attention="_flash_3", **options)
    assert plan.arithmetic is not None
    assert plan.arithmetic.attention == attention_shares(PROFILES["h100-sxm"])
    assert plan.arithmetic.denoiser_attention == attention_shares(PROFILES["h100-sxm"], "_flash_3")
    assert plan.arithmetic.rates[RateKey.PINNED_H2D].down == 2.0
    path = tmp_path / "plan.yaml"
    path.write_text(plan_to_yaml(plan), encoding="utf-8")
    assert read_plan(path) == plan
