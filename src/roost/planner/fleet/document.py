"""The chosen layout as a plan document: the plan of a worker that denoises, with all workers and what was compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from roost.plan.figures import AlternativeComponent
from roost.plan.fleet import FleetRecord, HostMemory, LayoutRecord, WorkerRecord
from roost.plan.revision import revised
from roost.plan.schema import ComponentPlan, PlanDocument, WorkerPlan
from roost.planner.fleet.choice import Able, Compared
from roost.planner.fleet.figures import Demand
from roost.planner.fleet.service import Worker


def fleet_document(compared: Sequence[Compared], demand: Demand) -> PlanDocument | None:
    """The plan; None where no layout was chosen."""
    best = next((each.able for each in compared if each.why is not None), None)
    if best is None:
        return None
    main = next(each for each in best.layout.workers if {"generate", "denoise"} & each.planned.seconds.keys())
    plans = _plans_beside(main.planned.plan, best.layout.workers)
    return revised(
        main.planned.plan,
        certainty="sure" if best.sure else "likely",
        layout=best.layout.name,
        workers=[_worker(each, plans) for each in best.layout.workers],
        fleet=_fleet(best, demand),
        layouts=[layout_record(each) for each in compared],
        worker_plans={name: _own(plan) for name, plan in plans.items()},
    )


def _plans_beside(main: PlanDocument, workers: Sequence[Worker]) -> dict[str, PlanDocument]:
    """The plans of workers that differ from ``main``, each once, by the name of the first worker that has it."""
    found: dict[str, PlanDocument] = {}
    for each in workers:
        if all(each.planned.plan is not one for one in (main, *found.values())):
            found[each.name] = each.planned.plan
    return found


def _own(plan: PlanDocument) -> WorkerPlan:
    return WorkerPlan(**{name: getattr(plan, name) for name in WorkerPlan.model_fields})


def _worker(worker: Worker, plans: Mapping[str, PlanDocument]) -> WorkerRecord:
    planned = worker.planned
    return WorkerRecord(
        name=worker.name,
        host=worker.seat.host,
        gpu=planned.gpu.name,
        device=worker.seat.device,
        role=planned.role,
        components={name: _placed(each) for name, each in planned.plan.components.items()},
        peak_bytes=planned.peak_bytes,
        request_s=planned.request_s,
        plan=next((name for name, plan in plans.items() if plan is planned.plan), None),
    )


def _placed(component: ComponentPlan) -> AlternativeComponent:
    return AlternativeComponent(
        strategy=component.strategy,
        resident_blocks=component.resident_blocks,
        resident_policy=component.resident_policy,
        prefetch=component.prefetch,
        master=component.master,
        tiling=component.tiling,
    )


def _fleet(best: Able, demand: Demand) -> FleetRecord:
    figures, outcome = best.figures, best.figures.outcome
    return FleetRecord(
        requests_per_s=figures.requests_per_s,
        request_s=figures.request_s,
        host_bytes=figures.host_bytes,
        hosts=[HostMemory(name=each.name, bytes=each.bytes) for each in figures.hosts],
        requests=len(demand.arrivals),
        rate=demand.rate,
        failed=outcome.failed,
        p50_s=outcome.percentile_s(0.5),
        p95_s=outcome.percentile_s(0.95),
        utilisation=dict(outcome.busy),
    )


def layout_record(each: Compared) -> LayoutRecord:
    """One row of the comparison."""
    figures = each.able.figures if each.able else None
    return LayoutRecord(
        name=each.layout.name,
        workers=len(each.layout.workers),
        requests_per_s=figures.requests_per_s if figures else None,
        request_s=figures.request_s if figures else None,
        p95_s=each.able.p95_s if each.able else None,
        peak_bytes=figures.peak_bytes if figures else None,
        host_bytes=figures.host_bytes if figures else None,
        why=each.why,
        why_not=each.why_not,
    )
