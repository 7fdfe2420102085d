"""Learning: what runs on this machine taught, for the next plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING

from roost.api.machine import present_gpu
from roost.errors import RoostError
from roost.facts.machine import GpuFacts
from roost.facts.model import Inventory
from roost.facts.rates import RateKey, known_rates
from roost.facts.request import Workload
from roost.facts.stage import StageKey, is_same_stage
from roost.plan import PlanDocument
from roost.plan.figures import Kappa
from roost.plan.measurements import DeviceKey, MeasuredRate, RunComparison, RunFigures, StageFigures, device_key
from roost.planner.calibration import (
    fitted_in_use,
    kappa_samples,
    kappas_in_use,
    residual_of,
    taught_device,
    taught_model,
)
from roost.planner.prediction_error import compare_run, denoisers
from roost.profiles.store import MeasuredStore

if TYPE_CHECKING:
    from roost.api.measurements.run_records import GenerationRecord, RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What was measured of a device for a model class; ``notes`` say what was measured and does not count."""

    timed: Mapping[RateKey, MeasuredRate] = field(default_factory=dict)
    fitted: Mapping[RateKey, MeasuredRate] = field(default_factory=dict)
    kappas: Mapping[str, Kappa] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


NOTHING_KNOWN = Known()
_GONE_ON = "it went on from what an earlier run had kept"


def known_of(gpu: GpuFacts, inventory: Inventory, h2d_bytes_per_s: float | None = None) -> Known:
    """What the store knows of this device under this driver, and of the model's class on it."""
    store, key = MeasuredStore(), device_key(gpu, h2d_bytes_per_s)
    device = store.read(key, None)
    model = store.read(key, model_class_of(inventory.family, inventory.pipeline))
    others = () if device or model else _others(store, key)
    return Known(
        timed=known_rates(device.rates) if device else {},
        fitted=fitted_in_use(device, model),
        kappas=kappas_in_use(device),
        notes=(*store.notes, *others),
    )


def model_class_of(family: str | None, pipeline: str | None) -> str:
    """What runs of different models have in common: the family, or the pipeline's class where that is unknown."""
    return family or pipeline or "unknown"


def _others(store: MeasuredStore, key: DeviceKey) -> tuple[str, ...]:
    """A note for each other device of the same name; of this one there may be figures of other models alone."""
    named = [each for each in store.devices() if (each.device_kind, each.name) == (key.device_kind, key.name)]
    same = [each for each in named if each != key]
    wanted = "the card by its name alone" if key.device_kind == "cuda" and key.driver is None else key.text
    return tuple(f"what was measured on {each.text} is not used: this plan is for {wanted}." for each in same)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """A prediction beside its measurement (None without a prediction), and whether the store keeps it, or why not."""

    compared: RunComparison | None
    kept: bool
    why_not: str | None

    def document(self) -> dict[str, object] | None:
        """What ``roost run --json`` prints as ``compared``."""
        if self.compared is None:
            return None
        return {**self.compared.model_dump(mode="json"), "kept": self.kept, "why_not": self.why_not}


def remember(
    plan: PlanDocument,
    figures: RunFigures,
    *,
    changes: Sequence[str] = (),
    disturbances: Sequence[str] = (),
    workload: Workload | None = None,
    h2d_bytes_per_s: float | None = None,
) -> Remembered:
    """Puts what a run or trial of ``plan`` measured beside its prediction, and keeps it for the next plan.

    ``plan`` is the document that ran, with its ``predicted`` and ``arithmetic``. Every field of ``figures`` may be
    None: ``step_s`` is seconds a step in steady state, ``load_s`` and ``first_s`` those of the load and the first
    generation, peaks are tensors on the device; a stage that was run with fewer steps has ``seconds`` None.
    ``changes`` are the run's deviations from the plan, ``disturbances`` what slowed the GPU down meanwhile,
    ``workload`` what ran when it was not the plan's, ``h2d_bytes_per_s`` the rate that an emulated device throttled
    its copies to.

    Nothing is kept of a run that deviated, was disturbed, ran something else or had a guessed prediction; ``why_not``
    says so. Never raises for a store that can't be written.
    """
    compared = compare_run(plan, figures)
    why_not = _why_not(plan, changes, disturbances, workload)
    if compared is not None and why_not is None:
        why_not = _keep(plan, compared, h2d_bytes_per_s)
    return Remembered(compared=compared, kept=why_not is None, why_not=why_not)


def _why_not(
    plan: PlanDocument, changes: Sequence[str], disturbances: Sequence[str], workload: Workload | None
) -> str | None:
    if plan.predicted is None:
        return "the plan holds no prediction"
    if plan.predicted.guessed:
        return "the prediction was a guess, without a dry run"
    if plan.cache is not None:
        return "how much of it a cache over steps skipped is not predicted"
    if any(each.strategy == "fsdp" for each in plan.components.values()):
        return "what several processes took together says nothing of one"
    return _why_not_the_run(plan, changes, disturbances, workload)


def _why_not_the_run(
    plan: PlanDocument, changes: Sequence[str], disturbances: Sequence[str], workload: Workload | None
) -> str | None:
    if changes:
        return f"the run deviated from the plan ({changes[0]})"
    if workload is not None and workload != plan.workload:
        return "the run was not of the planned workload"
    return f"the run was disturbed ({disturbances[0].rstrip('.')})" if disturbances else None


def _keep(plan: PlanDocument, compared: RunComparison, h2d_bytes_per_s: float | None) -> str | None:
    """Adds the run to the store; returns why it could not."""
    when = now()
    residual = residual_of(plan, compared, when)
    store = MeasuredStore()
    try:
        key = _device_of(plan, h2d_bytes_per_s)
        name = model_class_of(plan.model.family, plan.model.pipeline)
        store.update(key, name, lambda entry: taught_model(entry, residual))
        if kappa_samples(compared):
            store.update(key, None, lambda entry: taught_device(entry, compared, when))
    except RoostError as error:
        return str(error)
    return None


def learn_activations(plan: PlanDocument, stage: StageKey, activation_bytes: int) -> None:
    """Keeps what one stage of the plan's workload took beside weights, for the next plan, as a run's stages are kept.

    A store that can't be written is done without.
    """
    work = (
        next((each for each in plan.arithmetic.stages if is_same_stage(each, stage)), None) if plan.arithmetic else None
    )
    predicted = (
        next((each for each in plan.predicted.stages if is_same_stage(each, stage)), None) if plan.predicted else None
    )
    if work is None or predicted is None:
        return
    context_bytes = plan.arithmetic.context_bytes if plan.arithmetic else 0
    # Weights are as planned; what differs from the predicted peak is what activations took.
    peak_bytes = predicted.peak_bytes - context_bytes + activation_bytes - work.activation_bytes
    figures = StageFigures(component=stage.component, phase=stage.phase, seconds=None, peak_bytes=max(0, peak_bytes))
    compared = compare_run(plan, RunFigures(stages=[figures]))
    if compared is not None and kappa_samples(compared):
        with suppress(RoostError):
            MeasuredStore().update(_device_of(plan), None, lambda entry: taught_device(entry, compared, now()))


def _device_of(plan: PlanDocument, h2d_bytes_per_s: float | None = None) -> DeviceKey:
    on_cuda = plan.machine.gpu.device_kind == "cuda"  # a plan for a card by its name does not know the driver
    return device_key(present_gpu() if on_cuda else plan.machine.gpu, h2d_bytes_per_s)


def now() -> str:
    """The time as the store writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def learn_from_run(plan: PlanDocument, workload: Workload, record: RunRecord) -> Remembered:
    """``remember`` of what ``roost run`` recorded; all of it may have been there already."""
    if all(each.skipped for each in record.generations):
        return Remembered(compared=None, kept=False, why_not="nothing was generated")
    resumed = [_GONE_ON] if record.resumed_from is not None else []
    return remember(
        plan,
        figures_of(plan, workload, record),
        changes=[*record.changes, *resumed],
        disturbances=record.disturbances,
        workload=workload,
    )


def figures_of(plan: PlanDocument, workload: Workload, record: RunRecord) -> RunFigures:
    """The run's figures: stages of the first generation, a step of the later ones where there are some.

    Of a workload that was not the plan's, and of work that an earlier run began, only the load can be compared. Nor do
    groups that are smaller than the others count.
    """
    largest = max(each.batch_of for each in record.generations)
    made = [each for each in record.generations if each.call_s is not None and each.batch_of == largest]
    if not made or workload != plan.workload or record.resumed_from is not None:
        return RunFigures(load_s=record.load_s)
    later = made[1:]
    whole = record.texts is None or not record.texts.encoded_ahead  # texts encoded ahead are in no generation's time
    steps = [_step_s(plan, each) for each in later or made]
    known = [each for each in steps if each is not None]
    return RunFigures(
        load_s=record.load_s,
        first_s=made[0].call_s if whole else None,
        next_s=median(each.call_s or 0.0 for each in later) if later and whole else None,
        step_s=median(known) if known else None,
        peak_bytes=made[0].peak_bytes,  # later, components stay where there is room, which no plan needs
        stages=[
            StageFigures(component=each.component, phase=each.phase, seconds=each.seconds, peak_bytes=each.peak_bytes)
            for each in made[0].stages
        ],
    )


def _step_s(plan: PlanDocument, generation: GenerationRecord) -> float | None:
    """Seconds a step: the denoisers' stages over the steps."""
    components = denoisers(plan.predicted) if plan.predicted else frozenset()
    seconds = [each.seconds for each in generation.stages if each.component in components]
    steps = plan.workload.steps_run
    return sum(seconds) / steps if seconds and steps else None
