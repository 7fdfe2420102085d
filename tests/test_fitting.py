"""What runs teach: rates from how long steps took, factors from what stages peaked at."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from measurements import EMULATED, RTX, WHEN, compared, entry, rate, residual
from roost.facts.rates import RateKey, known_rates
from roost.plan import PlanDocument
from roost.plan.figures import Rate
from roost.plan.measurements import KEPT_RUNS, KEPT_SAMPLES, DeviceKey, MeasuredEntry, Residual, RunComparison
from roost.planner.by_search import plan_by_search
from roost.planner.calibration import fitted_in_use, kappas_in_use, paced_by, taught_device, taught_model
from roost.planner.cost.costs import CostModel
from roost.planner.cost.rates import believed, rates_of
from roost.planner.cost.untraced import untraced
from roost.planner.documents.records import trace_record
from roost.planner.search.columns import Aim
from roost.planner.search_question import SearchQuestion
from roost.units import GiB
from traces import rates, trace, use
from worlds import component, inventory, machine, question

MATMUL = "matmul_flop_per_s"
EMPTY = MeasuredEntry(device=RTX, model_class="flux")


def taught(*runs: Residual) -> MeasuredEntry:
    found = EMPTY
    for run in runs:
        found = taught_model(found, run)
    return found


def test_a_step_twice_as_long_as_predicted_halves_the_rates_that_set_its_pace() -> None:
    fitted = taught(residual(2.0, 1.0, {MATMUL: 1e14})).rates
    assert list(fitted) == [MATMUL]
    assert (fitted[MATMUL].value, fitted[MATMUL].n, fitted[MATMUL].source) == (5e13, 1, "fitted")


def test_corrections_do_not_pile_up() -> None:
    first = taught(residual(2.0, 1.0, {MATMUL: 1e14}))
    again = taught_model(first, residual(2.0, 2.0, {MATMUL: first.rates[MATMUL].value}))
    assert again.rates[MATMUL].value == first.rates[MATMUL].value == 5e13
    assert again.rates[MATMUL].spread < first.rates[MATMUL].spread


def test_one_slow_run_moves_the_interval_and_not_the_rate() -> None:
    steady = [residual(1.0, 1.0, {MATMUL: 1e14})] * 4
    fitted = taught(*steady, residual(10.0, 1.0, {MATMUL: 1e14})).rates[MATMUL]
    assert (fitted.value, fitted.spread, fitted.n) == (1e14, pytest.approx(10.0), 5)


BELIEVED = Rate(value=1e14, spread=1.35, source="spec", why="data sheet")
STEPS = st.floats(0.9, 1.1)


def used(steps: list[float], before: Rate = BELIEVED) -> Rate:
    """The rate that the next plan takes after runs whose steps took so many times as long as by 1e14."""
    return believed(taught(*(residual(step, 1.0, {MATMUL: 1e14}) for step in steps)).rates[MATMUL], before)


@settings(deadline=None)
@given(st.lists(STEPS, min_size=0, max_size=KEPT_RUNS - 1), st.floats(0.02, 50), st.integers(0, KEPT_RUNS))
def test_one_odd_run_leaves_the_rate_within_the_other_runs_or_what_was_believed(
    steps: list[float], odd: float, position: int
) -> None:
    assume(odd > 0.9 or len(steps) != 1)  # of two the faster counts
    found = used([*steps[:position], odd, *steps[position:]])
    others = [1e14 / step for step in steps]
    assert min([1e14 / 1.35, *others]) * 0.999 <= found.value <= max([1e14 * 1.35, *others]) * 1.001


@settings(deadline=None)
@given(st.lists(STEPS, min_size=3, max_size=KEPT_RUNS), st.floats(0.02, 50))
def test_runs_that_agree_are_believed_however_far_from_the_data_sheet(steps: list[float], slower: float) -> None:
    found = used([step * slower for step in steps])
    assert 1e14 / 1.1 * 0.999 <= found.value * slower <= 1e14 / 0.9 * 1.001


def test_how_far_runs_carry_past_what_was_believed_depends_on_their_number() -> None:
    values = [used([16 * 1.35] * count).value for count in (1, 2, 3, 8)]
    assert values == pytest.approx([1e14 / 1.35, 1e14 / 1.35 / 4, 1e14 / 1.35 / 16, 1e14 / 1.35 / 16])
    assert used([1.3]).value == pytest.approx(1e14 / 1.3)  # within the interval one run is enough


def test_of_two_runs_the_faster_counts_because_disturbances_slow() -> None:
    assert used([1.0, 25.0]).value == used([25.0, 1.0]).value == 1e14


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=2 * KEPT_RUNS))
def test_every_kept_run_lies_within_the_fitted_interval(steps: list[float]) -> None:
    found = taught(*(residual(step, 1.0, {MATMUL: 1e14}) for step in steps))
    fitted = found.rates[MATMUL]
    assert len(found.residuals) == fitted.n == min(len(steps), KEPT_RUNS)
    taken = believed(fitted, BELIEVED)
    for step in steps[-KEPT_RUNS:]:
        assert taken.at("slow") * 0.999 <= 1e14 / step <= taken.at("fast") * 1.001
        assert fitted.value / fitted.spread * 0.999 <= 1e14 / step <= fitted.value * fitted.spread * 1.001


@pytest.mark.parametrize("name", ["pinned_h2d_bytes_per_s", "disk_bytes_per_s", "memory_bytes_per_s"])
@pytest.mark.parametrize(("fitted", "agrees"), [(20e9, True), (18e9, True), (10e9, False), (60e9, False)])
def test_a_fitted_transfer_far_from_the_timed_one_is_not_used(name: str, fitted: float, agrees: bool) -> None:
    model = EMPTY.model_copy(update={"rates": {name: rate(fitted, source="fitted")}})
    assert (name in fitted_in_use(entry(rates={name: rate()}), model)) is agrees
    assert fitted_in_use(None, model)[name].value == fitted


def test_a_models_fitted_arithmetic_goes_before_the_timed_one() -> None:
    timed = entry(rates={MATMUL: rate(1e14), "conv_flop_per_s": rate(5e13)})
    model = EMPTY.model_copy(update={"rates": {MATMUL: rate(2e13, source="fitted")}})
    found = rates_of(machine(8).gpu, None, known_rates(timed.rates), fitted_in_use(timed, model))
    assert (found[RateKey.MATMUL].value, found[RateKey.CONV].value) == (pytest.approx(2e13), 5e13)
    assert fitted_in_use(None, None) == {}


def run_with(
    peak_gib: float, *, kappa: float = 1.0, predicted_gib: float = 3.0, traced_gib: float = 1.0
) -> RunComparison:
    sizes = {
        "measured_peak_bytes": int(peak_gib * GiB),
        "predicted_peak_bytes": int(predicted_gib * GiB),
        "activation_bytes": int(traced_gib * GiB),
    }
    return compared(kappa=kappa, **sizes)


def factor_of(*runs: RunComparison):
    found = MeasuredEntry(device=RTX, model_class=None)
    for run in runs:
        found = taught_device(found, run, WHEN)
    return kappas_in_use(found).get("FluxTransformer2DModel")


def test_a_peak_above_the_predicted_one_is_the_factors_error() -> None:
    assert factor_of(run_with(3.25)).mid == pytest.approx(1.25)  # 2 GiB stay, 1 GiB of activations peaks at 1.25
    assert factor_of(run_with(3.0, kappa=1.25, predicted_gib=3.25)).mid == pytest.approx(1.0)


def test_a_factor_is_the_median_of_its_samples_and_its_interval_holds_them_all() -> None:
    found = factor_of(run_with(3.2), run_with(3.3), run_with(3.22))
    assert found.mid == pytest.approx(1.22)
    assert (found.low, found.high) == (pytest.approx(1.2 / 1.02), pytest.approx(1.3 * 1.02))
    assert WHEN[:10] in found.source


@pytest.mark.parametrize(
    "run",
    [
        run_with(1.9),  # less than what stays: activations were not counted
        run_with(8.0),  # something else was on the device
        run_with(3.0, traced_gib=0.03),  # too small a part of the peak
        run_with(3.0, traced_gib=0.0),
        run_with(0.002, predicted_gib=0.002, traced_gib=0.001),  # tiny: alignment is as large
        compared(activation_bytes=None, kappa=None),
    ],
)
def test_a_peak_that_says_nothing_about_activations_teaches_no_factor(run: RunComparison) -> None:
    assert factor_of(run) is None


def test_an_emulated_devices_factor_is_as_exact_as_its_samples() -> None:
    found = kappas_in_use(taught_device(MeasuredEntry(device=EMULATED, model_class=None), run_with(3.0), WHEN))
    assert (found["FluxTransformer2DModel"].low, found["FluxTransformer2DModel"].high) == (1.0, 1.0)


def test_the_number_of_samples_is_bounded() -> None:
    found = MeasuredEntry(device=RTX, model_class=None)
    for _ in range(2 * KEPT_SAMPLES):
        found = taught_device(found, run_with(3.2), WHEN)
    assert len(found.kappas["FluxTransformer2DModel"].samples) == KEPT_SAMPLES


DIT = component("transformer", 20 * GiB, blocks=20)
VAE = component("vae", GiB, position=1)


def planned(limiter: str, **changes: object) -> PlanDocument:
    """A plan whose steps one of link, compute and host paces; ``changes`` are of what was asked."""
    flops = {"link": 10**10, "compute": 10**15, "host": 10**6}[limiter]
    work = use(DIT, flops, GiB // 8)
    if limiter == "host":
        work = use(DIT, 0, GiB // 8)
    made_up = rates(kernels_per_s=1.0 if limiter == "host" else 1e5)
    asked = SearchQuestion(
        question=question(inventory(DIT, VAE), machine(8 if limiter == "link" else 40)),
        trace=trace((work, 8), (use(VAE, 10**9, 0, "decode"), 1)),
        model=CostModel(rates=made_up, backend="emulated"),
        aim=Aim(),
    )
    return plan_by_search(replace(asked, **changes))


def test_the_rates_of_a_limiter_are_those_that_the_denoiser_uses() -> None:
    assert paced_by(planned("compute")) == {MATMUL: 100e12, "memory_bytes_per_s": 1e12}
    link = planned("link")
    tiers = link.components["transformer"].master
    assert tiers is not None
    assert (tiers.pinned > 0, tiers.pageable) == (True, 0)
    assert paced_by(link) == {"pinned_h2d_bytes_per_s": 20e9}


def test_no_rate_is_fitted_to_guessed_work() -> None:
    guess = untraced((DIT, VAE), question(inventory(DIT), machine(8)).workload, "no pipeline class")
    guessed = planned("compute", trace=replace(guess, source="ESTIMATED"))
    assert guessed.predicted is not None
    assert (guessed.predicted.guessed, guessed.predicted.source) == (True, "ESTIMATED")
    assert trace_record(guess).guessed
    assert paced_by(guessed) == {}
    known = guessed.predicted.model_copy(update={"guessed": False})
    assert paced_by(guessed.model_copy(update={"predicted": known})) != {}
    assert paced_by(guessed.model_copy(update={"predicted": None})) == {}


def test_keys_read_well() -> None:
    assert RTX.text == "NVIDIA GeForce RTX 4090, driver 570.86"
    emulated = DeviceKey(device_kind="emulated", name="emulated", driver=None, h2d_bytes_per_s=12.5e9)
    assert emulated.text == "emulated, 12.5 GB/s"
