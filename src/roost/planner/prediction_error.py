"""A plan's prediction and a run's measurement, side by side."""

from __future__ import annotations

from roost.facts.stage import DENOISING, is_same_stage
from roost.plan.figures import Predicted, PredictedStage, SecondsInterval, StageWork
from roost.plan.measurements import (
    BytesCompared,
    RunComparison,
    RunFigures,
    SecondsCompared,
    StageCompared,
    StageFigures,
)
from roost.plan.schema import ComponentPlan, PlanDocument


def denoisers(predicted: Predicted) -> frozenset[str]:
    """The components whose stages make up the steps."""
    return frozenset(each.component for each in predicted.stages if each.phase in DENOISING)


def compare_run(plan: PlanDocument, figures: RunFigures) -> RunComparison | None:
    """Every predicted figure that was also measured; None for a plan without predictions.

    A process's context is predicted, and measured by nobody, so it is taken off the predicted peaks.
    """
    predicted = plan.predicted
    if predicted is None:
        return None
    peak = predicted.peak_bytes
    context = plan.arithmetic.context_bytes if plan.arithmetic else 0
    whole = None if figures.load_s is None or figures.first_s is None else figures.load_s + figures.first_s
    return RunComparison(
        load_s=_seconds(predicted.load_s, figures.load_s),
        first_s=_seconds(predicted.first_s, figures.first_s),
        next_s=_seconds(predicted.next_s, figures.next_s),
        first_total_s=_seconds(predicted.first_total_s, whole),
        step_s=_seconds(predicted.step_s, figures.step_s),
        peak_bytes=None
        if figures.peak_bytes is None
        else BytesCompared(
            low=max(0, peak.low - context),
            predicted=max(0, peak.mid - context),
            high=max(0, peak.high - context),
            measured=figures.peak_bytes,
        ),
        stages=_stages(plan, predicted, figures),
    )


def _seconds(predicted: SecondsInterval, measured: float | None) -> SecondsCompared | None:
    if measured is None:
        return None
    return SecondsCompared(low=predicted.low, predicted=predicted.mid, high=predicted.high, measured=measured)


def _stages(plan: PlanDocument, predicted: Predicted, figures: RunFigures) -> list[StageCompared]:
    context = plan.arithmetic.context_bytes if plan.arithmetic else 0
    work = {(each.component, each.phase): each for each in plan.arithmetic.stages} if plan.arithmetic else {}
    found = []
    for stage in predicted.stages:
        same = [each for each in figures.stages if is_same_stage(stage, each)]
        if same:
            component = plan.components[stage.component]
            found.append(_stage(stage, component, same, work.get((stage.component, stage.phase)), context))
    return found


def _stage(
    stage: PredictedStage, component: ComponentPlan, same: list[StageFigures], work: StageWork | None, context: int
) -> StageCompared:
    seconds = [each.seconds for each in same if each.seconds is not None]
    # A VAE's encode has a factor of its own, which decodes must not take over.
    teaches = work is not None and not (component.kind == "vae" and stage.phase == "image_encode")
    return StageCompared(
        name=stage.name,
        component=stage.component,
        class_name=component.class_name,
        predicted_s=stage.seconds,
        measured_s=sum(seconds) if len(seconds) == len(same) else None,
        predicted_peak_bytes=max(0, stage.peak_bytes - context),
        measured_peak_bytes=max(each.peak_bytes for each in same),
        activation_bytes=work.traced_bytes if work and teaches else None,
        kappa=work.kappa if work and teaches else None,
    )
