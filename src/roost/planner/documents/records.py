"""Predictions, traces and alternatives as the plan document's records."""

from __future__ import annotations

from collections.abc import Sequence

from roost.plan.fields import Masters
from roost.plan.figures import (
    Alternative,
    AlternativeComponent,
    BytesInterval,
    Predicted,
    PredictedStage,
    SecondsInterval,
    TraceRecord,
    UseRecord,
)
from roost.planner.cost.estimate import Interval, Prediction
from roost.planner.cost.movement import block_tiers, trunk_tier_of
from roost.planner.placements import Placement
from roost.trace import Trace


def trace_record(trace: Trace) -> TraceRecord:
    """Every distinct use, with how often it is called."""
    return TraceRecord(
        source=trace.source,
        guessed=trace.no_dry_run is not None,
        seconds=trace.seconds,
        uses=[
            UseRecord(
                component=use.component,
                method=use.method,
                calls=trace.calls(index),
                flops=use.flops,
                flops_by_class={name: work.flops for name, work in use.totals.items()},
                activation_bytes=use.activation_bytes.peak_bytes,
                output_bytes=use.output_bytes,
            )
            for index, use in enumerate(trace.uses)
        ],
    )


def predicted_record(prediction: Prediction, notes: Sequence[str] = ()) -> Predicted:
    """The prediction with its notes for people."""
    peak = prediction.peak_bytes
    return Predicted(
        peak_bytes=BytesInterval(low=round(peak.low), mid=round(peak.mid), high=round(peak.high)),
        load_s=_seconds(prediction.load_s),
        first_s=_seconds(prediction.first_s),
        next_s=_seconds(prediction.next_s),
        step_s=_seconds(prediction.step_s),
        total_s=_seconds(prediction.total_s),
        first_total_s=_seconds(prediction.first_total_s),
        limiter=prediction.limiter,
        host_bytes=prediction.host_bytes,
        pinned_bytes=prediction.pinned_bytes,
        stages=[
            PredictedStage(
                name=stage.name,
                phase=stage.key.phase,
                component=stage.component,
                seconds=stage.seconds,
                peak_bytes=stage.peak_bytes,
                binding=stage.binding,
            )
            for stage in prediction.stages
        ],
        source=prediction.source,
        guessed=prediction.guessed,
        notes=list(notes),
    )


def alternative_record(
    names: Sequence[str], placements: Sequence[Placement], prediction: Prediction, why_not: str
) -> Alternative:
    """One plan that was not chosen, under all of its names."""
    return Alternative(
        name=names[0],
        also=list(names[1:]),
        components={each.component.name: _component(each) for each in placements},
        predicted=predicted_record(prediction),
        why_not=why_not,
    )


def masters_of(placement: Placement) -> Masters | None:
    """Blocks in each tier; None where nothing has a master. A component without blocks counts as one."""
    if placement.strategy in ("resident", "fsdp"):
        return None
    tiers = block_tiers(placement) or (trunk_tier_of(placement),)
    return Masters(pinned=tiers.count("pinned"), pageable=tiers.count("pageable"), mapped=tiers.count("mapped"))


def _component(placement: Placement) -> AlternativeComponent:
    streaming = placement.streaming
    return AlternativeComponent(
        strategy=placement.strategy,
        resident_blocks=streaming.resident_blocks if streaming else None,
        resident_policy=streaming.resident_policy if streaming else None,
        prefetch=streaming.prefetch if streaming else None,
        master=masters_of(placement),
        tiling=placement.tiling,
    )


def _seconds(interval: Interval) -> SecondsInterval:
    return SecondsInterval(low=interval.low, mid=interval.mid, high=interval.high)
