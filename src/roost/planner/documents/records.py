"""Traces and alternatives as the plan document's records."""

from __future__ import annotations

from collections.abc import Sequence

from roost.plan.fields import Masters
from roost.plan.figures import (
    Alternative,
    AlternativeComponent,
    Predicted,
    TraceRecord,
    UseRecord,
)
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


def alternative_record(
    names: Sequence[str], placements: Sequence[Placement], predicted: Predicted, why_not: str
) -> Alternative:
    """One plan that was not chosen, under all of its names."""
    return Alternative(
        name=names[0],
        also=list(names[1:]),
        components={each.component.name: _component(each) for each in placements},
        predicted=predicted,
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
