"""What runs teach: rates and factors of activations that follow from how far predictions were off.

Rates. A step took r times as long as predicted, so the rates that set its pace (the limiter's) were 1/r of what the
prediction used. That figure is kept for each run, whatever the prediction had used, and the median of a model
class's newest runs is its fitted rate: corrections do not pile up, and one slow run among others does not count. How
far it carries a plan past what was believed before depends on the number of runs (``rates.believed``).

Factors. A stage's peak is what stays, plus κ times the traced activations A. What stays is exact, so the difference
between peaks is the factor's error: κ = κ used + (measured peak − predicted peak) / A. The median of the newest samples
of a component class is its factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median, median_high

from roost.facts.rates import H2D, HALF, MODELLESS, SINGLE, RateKey, known_rates, spelled_rates
from roost.facts.stage import DENOISING
from roost.plan.figures import Kappa, Limiter
from roost.plan.measurements import (
    KEPT_RUNS,
    KEPT_SAMPLES,
    BytesCompared,
    MeasuredEntry,
    MeasuredKappa,
    MeasuredRate,
    Pair,
    Residual,
    RunComparison,
    SecondsCompared,
    StageCompared,
)
from roost.plan.revision import revised
from roost.plan.schema import ComponentPlan, PlanDocument
from roost.units import MiB

# How far a rate may be from what one, two or more runs say. Prior.
_RUN_SPREADS = (1.25, 1.15, 1.1)
# The same of a factor; allocators round alike in every run.
_KAPPA_SPREADS = (1.05, 1.05, 1.02)
# Transfers and device memory do not depend on the model: what was timed by itself can be slowed by what runs beside it,
# but not more than this. Prior.
_AGREES = 1.5
# Activations below this share of a stage's peak, or this size, drown in what else is on the device.
_LEAST_SHARE, _LEAST_BYTES = 0.02, 4 * MiB
# A factor outside of this is not about activations: something else was, or was not, on the device.
_KAPPA_RANGE = (0.5, 4.0)


def fitted_in_use(device: MeasuredEntry | None, model: MeasuredEntry | None) -> dict[RateKey, MeasuredRate]:
    """The model's fitted rates, which go before the data sheet's and before the device's timed ones.

    One of transfers or memory far from the timed one is not used: something else slowed those runs.
    """
    timed = known_rates(device.rates if device else {})
    return {
        key: fitted
        for key, fitted in known_rates(model.rates if model else {}).items()
        if not (key in MODELLESS and key in timed and _apart(timed[key].value, fitted.value) > _AGREES)
    }


def kappas_in_use(device: MeasuredEntry | None) -> dict[str, Kappa]:
    """Fitted factors by component class."""
    if device is None:
        return {}
    emulated = device.device.device_kind == "emulated"
    return {name: _kappa(each, emulated=emulated) for name, each in device.kappas.items()}


def _kappa(measured: MeasuredKappa, *, emulated: bool) -> Kappa:
    spread = 1.0 if emulated else _by_number(_KAPPA_SPREADS, len(measured.samples))  # its memory is counted exactly
    return Kappa(
        low=min(measured.samples) / spread,
        mid=median(measured.samples),
        high=max(measured.samples) * spread,
        source=f"fitted: {len(measured.samples)} runs on this machine, the last on {measured.when[:10]}",
        fitted=True,
    )


def paced_by(plan: PlanDocument) -> dict[RateKey, float]:
    """The rates that set the pace of the plan's steps, as its prediction had them; none where they were guesses."""
    predicted = plan.predicted
    if predicted is None or predicted.guessed:
        return {}
    stages = [each for each in predicted.stages if each.phase in DENOISING]
    denoisers = {
        each.component: plan.components[each.component] for each in stages if each.binding == predicted.limiter
    }
    rates = known_rates(plan.arithmetic.rates if plan.arithmetic else {})
    return {key: rates[key].value for key in _pacing(predicted.limiter, plan, denoisers) if key in rates}


def _pacing(limiter: Limiter, plan: PlanDocument, denoisers: Mapping[str, ComponentPlan]) -> list[RateKey]:
    if limiter == "host":
        return [RateKey.KERNELS]
    if limiter == "disk":
        return [RateKey.DISK]
    if limiter == "link":
        counts = [each.master.model_dump() for each in denoisers.values() if each.master]
        return [key for tier, key in H2D.items() if any(count[tier] for count in counts)]
    uses = [use for use in (plan.trace.uses if plan.trace else []) if use.component in denoisers]
    singles = {each.load_dtype == "float32" for each in denoisers.values()}
    tables = [table for single, table in ((False, HALF), (True, SINGLE)) if single in singles]
    used = [name for name in HALF if any(use.flops_by_class.get(name) for use in uses)]
    return [*(table[name] for table in tables for name in used), RateKey.MEMORY]


def residual_of(plan: PlanDocument, compared: RunComparison, when: str) -> Residual:
    """What is kept of one run of the plan."""
    assert plan.predicted is not None, "only a prediction has something to learn from"
    return Residual(
        when=when,
        workload=plan.workload,
        strategy=_strategy(plan),
        limiter=plan.predicted.limiter,
        rates=spelled_rates(paced_by(plan).items()),
        load_s=_pair(compared.load_s),
        first_s=_pair(compared.first_s),
        next_s=_pair(compared.next_s),
        step_s=_pair(compared.step_s),
        peak_bytes=_pair(compared.peak_bytes),
    )


def _pair(found: SecondsCompared | BytesCompared | None) -> Pair | None:
    return None if found is None else Pair(predicted=float(found.predicted), measured=float(found.measured))


def _strategy(plan: PlanDocument) -> str:
    parts = []
    for name in plan.load_order:
        component = plan.components[name]
        blocks = sum(stack.count for stack in component.stacks)
        noun = " layers" if component.leaf_level else ""
        kept = "" if component.resident_blocks is None else f" {component.resident_blocks} of {blocks}{noun}"
        parts.append(f"{name} {component.strategy}{kept}")
    return ", ".join(parts)


def taught_model(entry: MeasuredEntry, residual: Residual) -> MeasuredEntry:
    """The model class's entry with one more run in it, and its rates fitted again."""
    residuals = [*entry.residuals, residual][-KEPT_RUNS:]
    return revised(entry, residuals=residuals, rates=_fitted_rates(residuals))


def _fitted_rates(residuals: Sequence[Residual]) -> dict[str, MeasuredRate]:
    values: dict[str, list[float]] = {}
    newest: dict[str, str] = {}
    for residual in residuals:
        step = residual.step_s
        if step is None or not step.measured or not step.predicted:
            continue
        for name, used in residual.rates.items():
            values.setdefault(name, []).append(used * step.predicted / step.measured)
            newest[name] = residual.when
    return {name: _fitted(found, newest[name]) for name, found in values.items()}


def _fitted(values: Sequence[float], when: str) -> MeasuredRate:
    middle = median_high(values)  # of two in the middle the faster: what disturbs a run slows it
    spread = max(_by_number(_RUN_SPREADS, len(values)), *(_apart(value, middle) for value in values))
    return MeasuredRate(value=middle, spread=spread, n=len(values), when=when, source="fitted")


def taught_device(entry: MeasuredEntry, compared: RunComparison, when: str) -> MeasuredEntry:
    """The device's entry with the factors of the run's component classes added to their samples."""
    new = {
        name: MeasuredKappa(samples=[*_samples(entry, name), sample][-KEPT_SAMPLES:], when=when)
        for name, sample in kappa_samples(compared).items()
    }
    return revised(entry, kappas={**entry.kappas, **new})


def _samples(entry: MeasuredEntry, name: str) -> list[float]:
    return entry.kappas[name].samples if name in entry.kappas else []


def kappa_samples(compared: RunComparison) -> dict[str, float]:
    """The factor that each component class had in one run; the largest where a class has several stages."""
    found: dict[str, float] = {}
    for stage in compared.stages:
        sample = _kappa_sample(stage)
        if sample is not None:
            found[stage.class_name] = max(sample, found.get(stage.class_name, 0.0))
    return found


def _kappa_sample(stage: StageCompared) -> float | None:
    activations, used = stage.activation_bytes, stage.kappa
    if activations is None or used is None:
        return None
    if activations < max(_LEAST_BYTES, _LEAST_SHARE * stage.measured_peak_bytes):
        return None
    sample = used + (stage.measured_peak_bytes - stage.predicted_peak_bytes) / activations
    return sample if _KAPPA_RANGE[0] <= sample <= _KAPPA_RANGE[1] else None


def _apart(one: float, other: float) -> float:
    return max(one / other, other / one)


def _by_number(spreads: Sequence[float], number: int) -> float:
    return spreads[min(number, len(spreads)) - 1]
