"""How a plan looks to a person."""

from __future__ import annotations

from roost.cli.screen import show_table, show_text
from roost.plan.schema import ComponentPlan, PlanDocument
from roost.units import format_bytes


def show_plan(plan: PlanDocument) -> None:
    """The model, the budget, one row a component, then why, what was blocked, and the verdict."""
    model, workload, gpu = plan.model, plan.workload, plan.machine.gpu
    total = sum(component.load_bytes for component in plan.components.values())
    frames = f" × {workload.frames} frames" if workload.frames else ""
    show_text(f"{model.pipeline} · {model.family or 'unknown family'} · {format_bytes(total)} of weights loaded")
    show_text(
        f"for {workload.width}×{workload.height}{frames}, {workload.steps} steps, batch {workload.batch}"
        f" · mode {plan.policy.mode}, policy {plan.policy.name}"
        + (f", role {plan.role.name}" if plan.role.name != "monolithic" else "")
    )
    show_text(
        f"on {gpu.name}: {format_bytes(plan.budget.free_bytes)} free of {format_bytes(plan.budget.total_bytes)}"
        f" ({gpu.source}), headroom {format_bytes(plan.budget.headroom_bytes)},"
        f" budget {format_bytes(plan.budget.budget_bytes)}"
        f" · host {format_bytes(plan.machine.host.available_bytes)} ({plan.machine.host.source})"
    )
    show_table(
        ("Component", "Strategy", "Blocks", "Loaded", "Masters", "Decided by"),
        [
            (name, _strategy(component), _blocks(component), format_bytes(component.load_bytes),
             _masters(component), component.decided_by)
            for name, component in ((name, plan.components[name]) for name in plan.load_order)
        ],
        numbers=(3,),
    )  # fmt: skip
    _show_reasons(plan)


def _show_reasons(plan: PlanDocument) -> None:
    for name in plan.load_order:
        show_text(f"why  {name}: {plan.components[name].why}")
    for blocked in plan.policy.blocked:
        show_text(f"blocked  {blocked.id} by {blocked.by}")
    for stage in plan.budget.stages:
        show_text(f"stage  {stage.name}: {format_bytes(stage.weights_bytes)} of weights on the GPU")
    for warning in plan.warnings:
        show_text(f"warning: {warning}")
    show_text(f"load order: {', '.join(plan.load_order)}")
    show_text(f"verdict: {plan.budget.verdict}")


def _strategy(component: ComponentPlan) -> str:
    if component.linger:
        return f"{component.strategy} + linger"
    return component.strategy


def _blocks(component: ComponentPlan) -> str:
    count = sum(stack.count for stack in component.stacks)
    if component.resident_blocks is None:
        return str(count)
    if component.hold:
        return f"{count} held"
    return f"{component.resident_blocks}/{count} stay, prefetch {component.prefetch}"


def _masters(component: ComponentPlan) -> str:
    if component.master is None:
        return "none" if component.strategy in ("resident", "fsdp") else "pageable"
    tiers = component.master.model_dump()
    return ", ".join(f"{count} {tier}" for tier, count in tiers.items() if count) or "none"
