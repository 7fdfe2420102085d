"""Back from a plan document to what was planned: the placements, and a forecast that simulates them again."""

from __future__ import annotations

from collections.abc import Iterable

from roost.facts.decider import decider_of
from roost.facts.machine import Machine
from roost.facts.model import Component
from roost.plan.schema import ComponentPlan, PlanDocument
from roost.planner.cost.costs import CostModel
from roost.planner.cost.estimate import Forecast
from roost.planner.cost.fp8_storage import in_fp8
from roost.planner.placements import Placement, Streaming
from roost.planner.rules.case import Decision
from roost.trace import Trace, of_role


def placements_of(plan: PlanDocument, components: Iterable[Component], trace: Trace) -> tuple[Placement, ...]:
    """The placements that the document records, of the inventory's ``components``; ``trace`` is of its dry run."""
    placed = [each for each in components if each.name in plan.components]
    return tuple(
        _placement(plan, (in_fp8(each, trace) if plan.components[each.name].storage else None) or each)
        for each in placed
    )


def forecast_of(plan: PlanDocument, components: Iterable[Component], trace: Trace, model: CostModel) -> Forecast:
    """A forecast on the machine that the plan was made for."""
    placed = {each.name: each for each in components if each.name in plan.components}
    return Forecast(
        components=placed,
        trace=of_role(trace, placed).sliced(name for name in placed if plan.components[name].slicing),
        model=model,
        machine=machine_of(plan),
        generations=plan.policy.generations,
        gives_back=bool(plan.budget.host_turns),
    )


def machine_of(plan: PlanDocument) -> Machine:
    """The machine that the plan was made for."""
    return Machine(gpu=plan.machine.gpu, host=plan.machine.host, headroom_bytes=plan.budget.headroom_bytes)


def _placement(plan: PlanDocument, component: Component) -> Placement:
    planned = plan.components[component.name]
    tiers = plan.arithmetic.tiers if plan.arithmetic else {}
    return Placement(
        component=component,
        strategy=planned.strategy,
        linger=planned.linger,
        streaming=_streaming(planned),
        decision=Decision(strategy=planned.strategy, decided_by=decider_of(planned.decided_by), why=planned.why),
        fsdp_shards=plan.policy.num_gpus,
        tier=tiers.get(component.name, "pageable"),
        tiling=planned.tiling,
        slicing=planned.slicing,
    )


def _streaming(planned: ComponentPlan) -> Streaming | None:
    if planned.strategy != "layerwise-offload":
        return None
    assert planned.master is not None  # the schema has them all for this strategy
    assert planned.resident_blocks is not None
    assert planned.prefetch is not None
    return Streaming(
        resident_blocks=planned.resident_blocks,
        resident_policy=planned.resident_policy or "strided",
        prefetch=planned.prefetch,
        slots=planned.slots or 0,
        hold=bool(planned.hold),
        **planned.master.model_dump(),
    )
