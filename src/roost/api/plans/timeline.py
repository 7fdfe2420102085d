"""Timelines: a plan simulated again from its document, and the trace of its model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from roost.api.models.inspect import profile_of
from roost.api.models.traces import kept_trace, trace_model
from roost.api.plans.forecast import forecast_traced, planned_inventory, recorded_costs
from roost.api.requests.request import workload_text
from roost.blocks import block_names
from roost.errors import DryRunError, UsageError
from roost.facts.model import Component, Inventory
from roost.plan import PlanDocument
from roost.planner.cost.attention import attention_shares
from roost.planner.cost.costs import CostModel
from roost.planner.cost.rates import rates_of, single_dtypes_of
from roost.planner.cost.simulator import Timeline, simulate
from roost.planner.cost.simulator.lanes import MemoryEvent
from roost.planner.cost.untraced import guessing, untraced
from roost.planner.documents.reader import machine_of
from roost.profiles.gpus import load_gpu_profiles
from roost.timeline import MemoryLevel, Pass, Slice, TimelineRecord
from roost.trace import Trace
from roost.units import format_bytes, format_seconds

# The simulation repeats what the plan recorded to the last bits, unless the trace is another.
_SAME = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A plan's first generation, simulated again; ``notes`` say what differs from the plan's own prediction."""

    record: TimelineRecord
    timeline: Timeline
    notes: tuple[str, ...]


def replay_plan(plan: PlanDocument, model: str | None = None, *, only_kept: bool = False) -> Replay:
    """The predicted timeline of the plan's first generation.

    The trace comes from the cache; where it is not there, the model at the plan's path (or ``model``) is dry-run,
    unless ``only_kept``. Raises UsageError when there is no trace or no model to look at, PlanMismatch for another one.
    """
    inventory = planned_inventory(plan, model)
    trace, cost_model, notes = _costs_of(plan, inventory, only_kept=only_kept)
    again = forecast_traced(plan, inventory, trace, cost_model)
    timeline = simulate(again.forecast.schedule(again.placements), record=True)
    if plan.predicted is not None:
        planned_s = plan.predicted.first_s.mid
        if abs(timeline.seconds - planned_s) > _SAME * max(planned_s, timeline.seconds):
            notes.append(
                f"the simulation takes {format_seconds(timeline.seconds)} where the plan says"
                f" {format_seconds(planned_s)}: it was planned by another version or from another trace."
            )
    return Replay(record=record_of(plan, timeline, again.components), timeline=timeline, notes=tuple(notes))


def _costs_of(plan: PlanDocument, inventory: Inventory, *, only_kept: bool) -> tuple[Trace, CostModel, list[str]]:
    """The trace, and the plan's own cost model; a plan by the rules alone gets its card's."""
    gpu, workload = machine_of(plan).gpu, plan.workload
    backend = "emulated" if gpu.device_kind == "emulated" else gpu.platform
    recorded = recorded_costs(plan)
    profile = load_gpu_profiles().get(gpu.profile or "")
    computes = profile if backend == "cuda" else None
    model = recorded or CostModel(
        rates=rates_of(gpu, profile),
        backend=backend,
        single_dtypes=single_dtypes_of(profile),
        attention=attention_shares(computes),
        denoiser_attention=attention_shares(computes, plan.attention),
    )
    components = inventory.components
    reason = plan.trace.source if plan.trace else ""
    if plan.trace is None or not plan.trace.guessed:
        try:
            trace = (kept_trace if only_kept else trace_model)(inventory, profile_of(inventory), workload)
            if trace is None:
                raise UsageError(
                    "there is no trace of this plan in the cache; make one with: roost timeline PLAN -o OUT"
                )
            return trace, model, []
        except DryRunError as error:
            reason = str(error)
    note = f"no dry run ({reason}): work and activations are guessed from sizes."
    return untraced(components, workload, reason), guessing(model, components), [note]


def record_of(plan: PlanDocument, timeline: Timeline, components: Iterable[Component]) -> TimelineRecord:
    """A simulated timeline of the plan, under the names of its blocks."""
    predicted = plan.predicted
    blocks = {each.name: block_names(each.units) for each in components}
    figures = {"generation": format_seconds(timeline.seconds), "peak": format_bytes(timeline.peak_bytes)}
    if predicted is not None:
        figures["load before it"] = format_seconds(predicted.load_s.mid)
        figures["generation, between"] = (
            f"{format_seconds(predicted.first_s.low)} and {format_seconds(predicted.first_s.high)}"
        )
    return TimelineRecord(
        kind="predicted",
        model=plan.model.family or plan.model.pipeline,
        workload=workload_text(plan.workload),
        device=plan.machine.gpu.name,
        budget_bytes=plan.budget.budget_bytes,
        slices=tuple(
            Slice(
                lane=each.lane,
                component=each.component,
                part="trunk" if each.block is None else blocks[each.component][each.block],
                start_s=each.start_s,
                end_s=each.end_s,
                bytes=each.bytes,
            )
            for each in timeline.events
        ),
        passes=tuple(
            Pass(
                stages=span.stages,
                component=span.component,
                start_s=span.start_s,
                end_s=span.end_s,
                count=span.passes,
                skipped=span.skipped,
            )
            for span in timeline.spans
        ),
        memory=tuple(_levels(timeline.memory)),
        figures=figures,
    )


def _levels(events: tuple[MemoryEvent, ...]) -> Iterator[MemoryLevel]:
    """What is allocated from each moment on; where that moment held more for an instant, that first."""
    held: Counter[str] = Counter()
    for time_s, changes in groupby(events, key=lambda each: each.time_s):
        most = held.copy()
        for each in changes:
            held[each.component if each.what == "weights" else each.what] += each.change_bytes
            most = held.copy() if held.total() > most.total() else most
        if most.total() > held.total():
            yield MemoryLevel(time_s=time_s, bytes=+most)
        yield MemoryLevel(time_s=time_s, bytes=+held)
