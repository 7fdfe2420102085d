"""What a card reaches of its data sheet: each mechanism moves the rate the way it should."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roost.api.plans.plan import make_plan
from roost.facts.machine import GpuProfile, Number
from roost.facts.rates import ARITHMETIC, HALF, SINGLE
from roost.planner.cost.data_sheet_rates import reached
from roost.profiles.gpus import find_gpu_profile, load_gpu_profiles


def share(profile: GpuProfile, name: str = "matmul") -> float:
    assert profile.fp16_flop_per_s
    return reached(profile)[HALF[name]].flop_per_s / profile.fp16_flop_per_s.value


@pytest.mark.parametrize("key", load_gpu_profiles())
def test_every_card_reaches_less_than_its_data_sheet_in_every_class(key: str) -> None:
    profile = load_gpu_profiles()[key]
    found = reached(profile)
    assert found.keys() == ARITHMETIC
    assert profile.fp16_flop_per_s
    assert all(0 < each.flop_per_s < profile.fp16_flop_per_s.value for each in found.values())
    assert found[HALF["attention"]].flop_per_s < found[HALF["matmul"]].flop_per_s
    assert found[SINGLE["matmul"]].flop_per_s < found[HALF["matmul"]].flop_per_s


def test_a_card_short_of_power_reaches_less_of_its_peak() -> None:
    # Of one architecture and nearly one peak: 72 W and 275 W.
    assert share(find_gpu_profile("l4")) < 0.6
    assert share(find_gpu_profile("l20")) > 0.8
    assert "72 W" in reached(find_gpu_profile("l4"))[HALF["matmul"]].why
    assert " W" not in reached(find_gpu_profile("l20"))[HALF["matmul"]].why


def test_more_power_is_never_slower_and_pays_less_than_in_proportion() -> None:
    card = find_gpu_profile("h100-sxm")
    shares = [share(replace(card, power_w=Number(value=watts, source="made up"))) for watts in (175, 350, 700, 5000)]
    assert shares == sorted(shares)
    assert 1 < shares[2] / shares[1] < 2
    assert share(replace(card, power_w=None)) == shares[3]


def test_hoppers_attention_waits_for_its_softmax_where_its_tensor_cores_are_fast() -> None:
    full, cut = find_gpu_profile("h100-sxm"), find_gpu_profile("h20")
    assert share(full, "attention") < 0.45 < share(cut, "attention")
    assert share(find_gpu_profile("rtx-4090"), "attention") > 0.75


def test_float32_convolutions_use_tensor_cores_where_there_is_tf32() -> None:
    ampere, turing = reached(find_gpu_profile("a100-80gb")), reached(find_gpu_profile("t4"))
    assert ampere[SINGLE["conv"]].flop_per_s > 2 * ampere[SINGLE["matmul"]].flop_per_s
    assert "TF32" in ampere[SINGLE["conv"]].why
    assert turing[SINGLE["conv"]].flop_per_s < turing[SINGLE["matmul"]].flop_per_s


def test_an_architecture_after_the_newest_known_one_takes_that_ones_priors() -> None:
    known = find_gpu_profile("rtx-5090")
    later = replace(known, compute_capability="13.0")
    assert reached(later) == reached(known)


def test_a_card_without_a_tensor_rate_has_no_prior() -> None:
    assert reached(replace(find_gpu_profile("t4"), fp16_flop_per_s=None)) == {}


@pytest.mark.slow
def test_a_plan_in_bfloat16_warns_where_tensor_cores_lack_it() -> None:
    def warned(gpu: str, dtype: str) -> bool:
        plan = make_plan("sdxl", gpu=gpu, ram="64GiB", dtype=dtype, steps=2, measured=False)
        return any("lack bfloat16" in each for each in plan.warnings)

    assert warned("t4", "bfloat16")
    assert not warned("t4", "float16")
    assert not warned("rtx-3060", "bfloat16")
