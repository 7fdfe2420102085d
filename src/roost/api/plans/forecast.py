"""From a plan's document to the forecast that it was made of: its model, the model's trace, and its own cost model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from roost.api.models.inspect import inspect_planned, profile_of
from roost.api.models.traces import trace_model
from roost.api.plans.preflight import model_differences
from roost.api.requests.known_values import DTYPES
from roost.errors import PlanMismatch, RoostError, UsageError
from roost.facts.model import Component, Inventory
from roost.facts.request import Workload
from roost.plan import PlanDocument
from roost.planner.buffers import in_order, with_unfiled
from roost.planner.cost.costs import CostModel
from roost.planner.cost.estimate import Forecast
from roost.planner.documents.cost_model import cost_model_of
from roost.planner.documents.reader import forecast_of, placements_of
from roost.planner.leaf_level import at_leaf_level, with_leaves
from roost.planner.placements import Placement
from roost.probes.model.hub import is_path
from roost.shell_quoting import command, shown_path
from roost.trace import Trace

ChangeTrace = Callable[[Trace, Inventory], Trace]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedForecast:
    """What a plan was predicted by, and its placements, to be simulated again."""

    components: tuple[Component, ...]
    forecast: Forecast
    placements: tuple[Placement, ...]


def forecast_plan(
    plan: PlanDocument,
    model: str | None,
    workload: Workload,
    *,
    with_forms: bool = False,
    change: ChangeTrace | None = None,
) -> PlannedForecast | None:
    """The plan's forecast for ``workload``, by its own rates and factors; None for a plan that has none.

    ``model`` is where its model is now; without a kept trace it is dry-run. ``change`` makes of the trace another
    one. Raises DryRunError, and what ``planned_inventory`` does.
    """
    costs = recorded_costs(plan)
    if costs is None:
        return None
    inventory = planned_inventory(plan, model)
    trace = trace_model(inventory, profile_of(inventory), workload, with_forms=with_forms)
    return forecast_traced(plan, inventory, trace if change is None else change(trace, inventory), costs)


def forecast_traced(plan: PlanDocument, inventory: Inventory, trace: Trace, costs: CostModel) -> PlannedForecast:
    """The forecast from a trace of the plan's model."""
    components = tuple(_as_planned(plan, each) for each in with_unfiled(inventory, trace).components)
    forecast = forecast_of(plan, components, trace, costs)
    placements = placements_of(plan, components, forecast.trace)
    return PlannedForecast(components=components, forecast=forecast, placements=placements)


def _as_planned(plan: PlanDocument, component: Component) -> Component:
    """The component with its stacks in the plan's order, which decides whose blocks stay."""
    planned = plan.components.get(component.name)
    if planned is None:
        return component
    ordered = in_order(component, [stack.name for stack in planned.stacks])
    return with_leaves(ordered, {stack.name: stack.leaves for stack in planned.stacks})


def recorded_costs(plan: PlanDocument) -> CostModel | None:
    """The cost model that the plan was made with; None for one by the rules alone."""
    return cost_model_of(plan.arithmetic) if plan.arithmetic else None


def planned_inventory(plan: PlanDocument, model: str | None) -> Inventory:
    """The plan's model, at the load dtypes that it was planned with, and at leaf level where it streams so."""
    at_leaves = [name for name, each in plan.components.items() if each.leaf_level]
    return at_leaf_level(_found(plan, model), at_leaves)


def _found(plan: PlanDocument, model: str | None) -> Inventory:
    if model is None and plan.model.source == "memory":
        raise UsageError(
            "a timeline is simulated from what the plan's model does, and this plan was made of a"
            f" {plan.model.pipeline} in memory; say where that model is with --model DIR."
        )
    source = model or plan.model.path or plan.model.family or ""
    where = shown_path(source)
    if model is None and plan.model.path is not None and not is_path(plan.model.path):
        raise UsageError(
            f"a timeline is simulated from what the plan's model does, and {where} doesn't exist here; say where the"
            " model is with --model DIR."
        )
    try:
        found = inspect_planned(plan, source)
        planned = {name: each.load_dtype for name, each in plan.components.items()}
        for dtype in DTYPES:
            if all(planned.get(each.name, each.load_dtype) == each.load_dtype for each in found.components):
                break
            found = inspect_planned(plan, source, dtype=dtype)
    except RoostError as error:
        raise UsageError(
            f"a timeline is simulated from what the plan's model does, and {where} can't be read: {error}"
            " Say where the model is with --model DIR."
        ) from None
    if plan.model.fingerprint == found.fingerprint:
        return found
    differences = model_differences(plan, found) if found.path is not None else ["it is another model"]
    if differences:
        raise PlanMismatch(
            f"the model at {where} is not the one that this plan is for: {'; '.join(differences[:3])}."
            f" Plan it anew with: {command('roost', 'plan', Path(source), '-o', 'PLAN')}"
        )
    return found
