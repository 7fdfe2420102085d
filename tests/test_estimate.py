"""Rates, factors and predictions: sources, intervals, and arithmetic that can be done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from measurements import WHEN, rate
from roost.api.machine import gpu_of_profile
from roost.facts.rates import RateKey, known_rates
from roost.facts.request import Workload
from roost.plan.figures import Kappa
from roost.planner.buffers import cast_bytes
from roost.planner.cost.costs import CostModel, use_costs
from roost.planner.cost.estimate import predict
from roost.planner.cost.movement import load_s, moved_weights
from roost.planner.cost.rates import LEVELS, rates_of, single_dtypes_of
from roost.planner.cost.untraced import guessing, untraced
from roost.planner.placements import Placement
from roost.profiles.gpus import find_gpu_profile
from roost.trace import BlockLinears, LinearWeights, OpClassTotals
from roost.units import GiB
from traces import case_of, forecast, rates, totals, trace, use
from worlds import component

TERA = 10**12
DIT = component("transformer", 20 * GiB, blocks=20)
VAE = component("vae", GiB, position=1)
CALLS = trace((use(DIT, 100 * TERA, GiB), 8), (use(VAE, 10 * TERA, 2 * GiB, "decode"), 1), steps=4)


def ruled(made) -> tuple[Placement, ...]:
    return case_of((DIT, VAE), made)[1]


def test_a_known_card_has_rates_from_its_data_sheet() -> None:
    profile = find_gpu_profile("rtx-4090")
    found = rates_of(gpu_of_profile(profile), profile)
    assert found[RateKey.MATMUL].value < profile.bf16_flop_per_s.value
    assert 20e9 < found[RateKey.PINNED_H2D].value < 31.5e9  # PCIe 4.0 x16
    assert found[RateKey.PAGEABLE_H2D].value < found[RateKey.PINNED_H2D].value
    assert {found[RateKey.MATMUL].source, found[RateKey.PINNED_H2D].source} == {"spec"}


def test_a_measured_rate_replaces_the_data_sheet_and_narrows_its_interval() -> None:
    profile = find_gpu_profile("rtx-4090")
    gpu = gpu_of_profile(profile)
    measured = {"pinned_h2d_bytes_per_s": rate(26e9, spread=1.03), "from_the_future": rate(1.0)}
    before, after = rates_of(gpu, profile), rates_of(gpu, profile, known_rates(measured))
    assert (after[RateKey.PINNED_H2D].value, after[RateKey.PINNED_H2D].source) == (26e9, "measured")
    assert after[RateKey.PINNED_H2D].spread == 1.03 < before[RateKey.PINNED_H2D].spread
    assert after[RateKey.PINNED_H2D].when == WHEN
    assert after[RateKey.MATMUL] == before[RateKey.MATMUL]


def test_an_unknown_card_has_a_wide_guess() -> None:
    profile = find_gpu_profile("rtx-4090")
    gpu = replace(gpu_of_profile(profile), pcie_generation=None, pcie_width=None)
    guess = rates_of(gpu, None)
    assert guess[RateKey.MATMUL].spread > 2 * rates_of(gpu, profile)[RateKey.MATMUL].spread
    assert guess[RateKey.PINNED_H2D].spread > 2


def test_the_slot_that_nvml_reports_beats_the_data_sheet() -> None:
    profile = find_gpu_profile("rtx-4090")
    narrow = replace(gpu_of_profile(profile), pcie_width=4)
    wide = rates_of(gpu_of_profile(profile), profile)[RateKey.PINNED_H2D].value
    assert rates_of(narrow, profile)[RateKey.PINNED_H2D].value == pytest.approx(wide / 4)


def test_work_takes_the_slower_of_arithmetic_and_memory_for_each_class_and_adds_them() -> None:
    speeds = rates(flops=100e12).at("mid")  # memory at 1 TB/s, 100,000 launches a second
    work = {
        "matmul": OpClassTotals(flops=200 * TERA, bytes=10**9, kernels=10),  # 2 s of arithmetic
        "attention": OpClassTotals(flops=TERA, bytes=3 * 10**12),  # 3 s of memory
        "conv": OpClassTotals(),
        "elementwise": OpClassTotals(bytes=10**12, kernels=10),  # 1 s of memory
    }
    model = CostModel(rates=rates(), backend="emulated")
    device_s, launches_s = model.work_s(work, "bfloat16", speeds)
    assert (device_s, launches_s) == (pytest.approx(6.0), pytest.approx(20 / 1e5))
    assert model.work_s(work, "float32", speeds)[0] == pytest.approx(
        8.0 + 4.0
    )  # a quarter of the rate: 8 s; memory binds


def test_stages_peak_at_their_weights_and_activations() -> None:
    made = forecast((DIT, VAE), CALLS, free_gib=60)
    resident = tuple(replace(each, strategy="resident", streaming=None) for each in ruled(made))
    prediction = predict(made, resident)
    assert prediction.peak_bytes.mid == pytest.approx(DIT.load_bytes + VAE.load_bytes + 2 * GiB, rel=1e-6)
    assert prediction.first_s.mid == pytest.approx(8 * 1.0 + 0.1)
    assert prediction.step_s.mid == pytest.approx(2.0)
    assert prediction.limiter == "compute"


def test_the_interval_holds_the_middle_and_spans_the_rates() -> None:
    made = forecast((DIT, VAE), CALLS, rates(spread=1.5), free_gib=24)
    prediction = predict(made, ruled(made))
    for each in (prediction.total_s, prediction.step_s, prediction.load_s, prediction.peak_bytes):
        assert each.low <= each.mid <= each.high
    assert prediction.total_s.high > 1.3 * prediction.total_s.mid


def test_a_slow_link_is_named_as_what_limits() -> None:
    made = forecast((DIT, VAE), CALLS, rates(link=2e9), free_gib=8)
    streaming = tuple(each for each in ruled(made))
    case, _ = case_of((DIT, VAE), made)
    assert case.on_cuda
    assert predict(made, streaming).limiter == "link"


@pytest.mark.parametrize(
    ("class_name", "method", "dtype", "factor"),
    [
        ("AutoencoderKL", "decode", "bfloat16", 1.60),
        ("AutoencoderKL", "decode", "float32", 1.27),
        ("AutoencoderKLWan", "decode", "float32", 1.22),
        ("AutoencoderKL", "encode", "bfloat16", 1.40),
    ],
)
def test_convolutional_vaes_on_cuda_take_the_prior_of_their_class(
    class_name: str, method: str, dtype: str, factor: float
) -> None:
    vae = replace(VAE, class_name=class_name)
    convolutions = {**totals(), "conv": OpClassTotals(flops=TERA)}
    work = replace(use(vae, 0, GiB, method), totals=convolutions, compute_dtype=dtype)
    kappa = CostModel(rates=rates(), backend="cuda").kappa(vae, work)
    assert kappa.low < kappa.mid == factor < kappa.high
    assert CostModel(rates=rates(), backend="emulated").kappa(vae, work).high == 1.0


def test_on_a_gpu_every_kernel_takes_a_start_and_the_host_more_than_a_launch() -> None:
    speeds = rates().at("mid")  # 10 µs a launch
    small = {**totals(), "elementwise": OpClassTotals(bytes=1, kernels=1000)}
    device_s, launches_s = CostModel(rates=rates()).work_s(small, "bfloat16", speeds)
    assert device_s == pytest.approx(0.006, rel=1e-6)
    assert launches_s == pytest.approx(0.050)


def test_bfloat16_runs_at_float32s_rates_where_tensor_cores_lack_it() -> None:
    turing, ampere = find_gpu_profile("t4"), find_gpu_profile("rtx-3060")
    speeds = rates(flops=100e12).at("mid")
    work = {**totals(), "matmul": OpClassTotals(flops=100 * TERA)}
    for profile, seconds in ((turing, 4.0), (ampere, 1.0)):
        model = CostModel(rates=rates(), single_dtypes=single_dtypes_of(profile))
        assert model.work_s(work, "bfloat16", speeds)[0] == pytest.approx(seconds)
        assert model.work_s(work, "float16", speeds)[0] == pytest.approx(1.0)


def test_a_fitted_factor_replaces_the_prior() -> None:
    fitted = Kappa(low=1.3, mid=1.31, high=1.32, source="fitted")
    model = CostModel(rates=rates(), kappas={VAE.class_name: fitted})
    assert model.kappa(VAE, use(VAE, TERA)) is fitted


def test_loading_reads_casts_and_pins() -> None:
    stored = replace(VAE, bytes=2 * GiB, bytes_by_dtype={"F32": 2 * GiB})
    assert cast_bytes(stored) == 2 * GiB
    assert cast_bytes(VAE) == 0
    made = forecast((DIT, VAE), CALLS)
    kept = replace(ruled(made)[1], component=stored, strategy="resident", streaming=None)
    speeds = rates(cast_bytes_per_s=1e9).at("mid")
    assert load_s(kept, speeds) == pytest.approx(2 * GiB / 2e9 + 2 * GiB / 1e9 + GiB / 10e9)


@pytest.mark.parametrize("tier", ["mapped", "pageable"])
def test_files_are_read_at_load_also_where_masters_stay_in_them(tier: str) -> None:
    made = forecast((DIT, VAE), CALLS)
    moved = replace(ruled(made)[0], strategy="snapshot-offload", streaming=None, tier=tier)
    assert load_s(moved, rates().at("mid")) == pytest.approx(20 * GiB / 2e9)


def test_without_a_trace_the_usual_stages_stand_in_and_say_so() -> None:
    encoder = component("text_encoder", GiB, blocks=4, position=2)
    workload = Workload(width=1024, height=1024, frames=None, steps=10, batch=1, guidance=5.0)
    parts = (DIT, VAE, encoder)
    stand_in = untraced(parts, workload, "no pipeline class")
    order = [(stand_in.uses[index].component, count) for index, count in stand_in.sequence]
    assert order == [("text_encoder", 2), ("transformer", 20), ("vae", 1)]
    assert stand_in.source == "weights only: no pipeline class"
    made = forecast(parts, stand_in, free_gib=40)
    made = replace(made, model=guessing(made.model, parts))
    peak = predict(made, case_of(parts, made)[1]).peak_bytes
    assert peak.high - peak.low > GiB


def test_experts_share_the_steps_when_there_is_no_trace() -> None:
    parts = (DIT, component("transformer_2", GiB, blocks=4, position=2))
    workload = Workload(width=64, height=64, frames=5, steps=11, batch=1, guidance=1.0)
    assert [count for _, count in untraced(parts, workload, "x").sequence] == [5, 6]


def test_at_worst_a_pipeline_keeps_two_outputs_of_each_earlier_component_for_guidance() -> None:
    encoder = component("text_encoder", GiB, blocks=4, position=2)
    encode = replace(use(encoder, TERA), output_bytes=10)
    denoise, decode = (
        replace(use(DIT, TERA), output_bytes=1000),
        replace(use(VAE, TERA, method="decode"), output_bytes=7),
    )
    model = CostModel(rates=rates(), backend="emulated")

    def kept(*calls) -> list[int]:
        """What each use holds beside its own, at worst."""
        components = {each.name: each for each in (DIT, VAE, encoder)}
        slow, mid = (use_costs(trace(*calls), components, model, level) for level in ("slow", "mid"))
        return [worst.activation_bytes - likely.activation_bytes for worst, likely in zip(slow, mid, strict=True)]

    assert kept((encode, 1), (denoise, 8), (decode, 1)) == [0, 10, 10 + 2 * 1000]
    assert kept((encode, 2), (denoise, 1), (decode, 1)) == [0, 2 * 10, 2 * 10 + 1000]
    assert kept((encode, 5), (denoise, 8), (decode, 1)) == [0, 2 * 10, 2 * 10 + 2 * 1000]


def test_loading_reads_pins_and_moves_what_the_placement_says() -> None:
    made = forecast((DIT, VAE), CALLS, rates(link=20e9, spread=1.0, pin_bytes_per_s=4e9))
    speeds = made.model.rates.at("mid")
    moved, resident = ruled(made)[0], replace(ruled(made)[1], strategy="resident", streaming=None)
    assert moved.strategy == "component-offload"
    read_s = DIT.bytes / 2e9
    assert load_s(replace(moved, tier="pinned"), speeds) == pytest.approx(read_s + moved.master_bytes / 4e9)
    assert load_s(replace(moved, tier="pageable"), speeds) == pytest.approx(read_s)
    assert load_s(resident, speeds) == pytest.approx(VAE.bytes / 2e9 + resident.stage_bytes / 10e9)


def test_many_small_kernels_are_bound_by_the_host_and_few_large_ones_by_compute() -> None:
    small, large = use(DIT, 0), use(VAE, 10**10, method="decode")
    launches = replace(small, totals=totals(flops=TERA, kernels=1_000_000), blocks=())
    made = forecast((DIT, VAE), trace((launches, 2), (large, 3)))
    placed = tuple(replace(each, strategy="resident", streaming=None) for each in ruled(made))
    bindings = {stage.component: stage.binding for stage in predict(made, placed).stages}
    assert bindings == {"transformer": "host", "vae": "compute"}


@pytest.mark.parametrize(("link", "binding"), [(1000e9, "compute"), (40e9, "link")])
def test_what_waits_for_half_as_long_as_it_computes_is_bound_by_the_link(link: float, binding: str) -> None:
    encoder = component("text_encoder", 10 * GiB, blocks=4, position=2)
    made = forecast((encoder,), trace((use(encoder, 100 * TERA), 1)), rates(link=link))
    moved = replace(case_of((encoder,), made)[1][0], strategy="component-offload", streaming=None, tier="pinned")
    (stage,) = predict(made, (moved,)).stages
    assert stage.binding == binding
    assert 1.0 < stage.seconds < 1.6  # 1 s of it computes


def test_inputs_count_beside_activations_except_where_they_may_not_be_seen() -> None:
    denoise = replace(use(DIT, TERA, 1000), input_bytes=100, recast_bytes=10)
    counted = set()
    for backend in ("emulated", "cuda"):
        model = CostModel(rates=rates(), backend=backend)
        for level in LEVELS:
            (cost,) = use_costs(trace((denoise, 1)), {DIT.name: DIT}, model, level)
            counted.add((backend, level, cost.activation_bytes))
    assert counted == {
        ("emulated", "slow", 1110), ("emulated", "mid", 1110), ("emulated", "fast", 1010),
        ("cuda", "slow", 1150 + 110), ("cuda", "mid", 1020 + 110), ("cuda", "fast", 1000 + 110),
    }  # fmt: skip


def test_weights_in_8_bits_are_cast_in_every_call_of_their_block() -> None:
    linears = LinearWeights(
        component=DIT.name, largest_bytes=500, blocks=(BlockLinears(block="blocks.1", bytes=10**12, count=1),)
    )
    denoise = use(DIT, 100 * TERA, calls=2)
    calls, model = replace(trace((denoise, 1)), linears=(linears,)), CostModel(rates=rates(), backend="emulated")
    plain, cast = (
        use_costs(calls, {DIT.name: DIT}, model, "mid", frozenset(lossy))[0] for lossy in ([], [(DIT.name, "fp8")])
    )
    gained = [after[1] - before[1] for before, after in zip(plain.blocks, cast.blocks, strict=True)]
    assert gained == pytest.approx([2 * 3.5 if index == 1 else 0.0 for index in range(20)])  # at 1 TB/s
    assert cast.activation_bytes == plain.activation_bytes + 500


def test_a_shard_of_fsdp_never_moves_and_takes_its_share_of_the_device() -> None:
    made = forecast((DIT, VAE), CALLS)
    sharded = replace(ruled(made)[0], strategy="fsdp", streaming=None, fsdp_shards=4)
    moved = moved_weights(sharded, rates().at("mid"))
    assert moved.stays
    assert moved.total_bytes == moved.trunk_bytes == DIT.load_bytes // 4
    assert len(moved.block_bytes) == 20
    assert sharded.master_bytes == 0
    assert replace(sharded, strategy="snapshot-offload").master_bytes >= DIT.load_bytes
