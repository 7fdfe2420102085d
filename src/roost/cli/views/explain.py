"""How the explanation of a plan looks to a person."""

from __future__ import annotations

from collections.abc import Sequence

from roost.api.plans.explanation import ComponentAccount, Explanation, PlanRow, StageSum
from roost.api.requests.request import workload_text
from roost.cli.screen import off_by, rate_name, rate_value, show_folded, show_table, show_text
from roost.cli.views.plan_details import remedy_texts
from roost.cli.views.trials import show_trials
from roost.plan.figures import Rate, StageWork
from roost.plan.schema import PlanDocument
from roost.units import format_bytes, format_seconds

_LIMITED_BY = {"link": "the link", "compute": "compute", "host": "the host's launches", "disk": "the disk"}


def plan_title(plan: PlanDocument) -> str:
    """One line: the model, the workload and the GPU."""
    return f"{plan.model.family or plan.model.pipeline} · {workload_text(plan.workload)} · {plan.machine.gpu.name}"


def show_explanation(plan: PlanDocument, explanation: Explanation) -> None:
    """The budget by stage, then each component's decision, the rules, what was typed, and the rates."""
    show_text(plan_title(plan))
    if len(plan.workers) > 1:
        show_text(f"the first that denoises of a fleet's {len(plan.workers)} workers, layout {plan.layout}")
    policy = plan.policy
    aim = f" for {_aim(plan)}" if policy.name == "search" else ""
    show_text(f"decided by policy {policy.name}, mode {policy.mode}{aim}")
    _show_budget(plan, explanation.stages)
    for account in explanation.components:
        _show_component(account)
    _show_step(plan, explanation)
    _show_rules(plan, explanation)
    _show_rates(explanation)
    show_text()
    if plan.predicted is None:
        show_folded(
            "no prediction: this plan is the rules' alone; roost plan --policy search adds seconds and activations."
        )
    for note in plan.predicted.notes if plan.predicted else []:
        show_folded(f"note  {note}", hanging=6)
    if plan.measured:
        show_trials(plan.measured)
    _show_verdict(plan)


def _show_verdict(plan: PlanDocument) -> None:
    show_folded(f"verdict: {plan.budget.verdict_alone}")
    for text in remedy_texts(plan.budget):
        show_folded(text, hanging=text.index("  ") + 2)


def _aim(plan: PlanDocument) -> str:
    policy = plan.policy
    if policy.objective == "memory":
        return f"the least peak at up to {policy.max_slowdown or 1:g} times the least seconds"
    return f"the least seconds of {policy.generations} generation{'s' if policy.generations > 1 else ''}"


def _show_budget(plan: PlanDocument, stages: Sequence[StageSum]) -> None:
    budget = plan.budget
    show_text()
    show_text(
        f"budget  {format_bytes(budget.free_bytes)} free ({plan.machine.gpu.source})"
        f" − {format_bytes(budget.headroom_bytes)} headroom = {format_bytes(budget.budget_bytes)}"
    )
    tightest = max(stages, key=lambda each: each.peak_bytes, default=None)
    if any(each.activation_bytes is not None for each in stages):
        headings: tuple[str, ...] = ("Stage", "Context", "Weights", "Activations", "Peak", "Left")
        rows: list[tuple[str, ...]] = [
            (
                each.name,
                format_bytes(each.context_bytes),
                format_bytes(each.weights_bytes),
                format_bytes(each.activation_bytes),
                format_bytes(each.peak_bytes),
                format_bytes(each.left_bytes),
            )
            for each in stages
        ]
    else:
        headings = ("Stage", "Weights", "Left")
        rows = [(each.name, format_bytes(each.weights_bytes), format_bytes(each.left_bytes)) for each in stages]
    show_table(headings, rows, numbers=range(1, len(headings)))
    if tightest is not None:
        parts = "context + weights + activations" if tightest.activation_bytes is not None else "weights"
        show_text(f"tightest  {tightest.name}; peak = {parts}")


def _show_component(account: ComponentAccount) -> None:
    show_text()
    show_text(f"{account.name}: {account.strategy}, decided by {account.decided_by}")
    show_folded(f"why       {account.why}", indent="  ", hanging=10)
    show_folded(f"memory    {_memory(account)}", indent="  ", hanging=10)
    for work in account.work:
        show_folded(f"work      {_work(work)}", indent="  ", hanging=10)
    if account.binding is not None:
        show_text(f"  bound by  {_LIMITED_BY[account.binding]}")
    resident = account.if_resident
    if resident is not None:
        room = f"{format_bytes(resident.short_bytes)} too much" if resident.short_bytes else "which would fit"
        show_folded(
            f"resident  would need {format_bytes(account.load_bytes)} always: {resident.stage} would take"
            f" {format_bytes(resident.peak_bytes)}, {room}",
            indent="  ",
            hanging=10,
        )


def _memory(account: ComponentAccount) -> str:
    part = f"{format_bytes(account.device_bytes)} of {format_bytes(account.load_bytes)} on the GPU while in use"
    if account.strategy != "layerwise-offload":
        return part
    if account.held:
        return f"{part}: {account.blocks} blocks held, each from its first use until the stage ends"
    streamed = account.blocks - account.resident_blocks
    noun = "layers" if account.leaf_level else "blocks"
    return f"{part}: {account.resident_blocks} of {account.blocks} {noun} stay" + (
        f", {streamed} pass through {account.slots} slots, {account.prefetch} ahead" if streamed else ""
    )


def _work(work: StageWork) -> str:
    """One pass where passes repeat, and the whole stage's waiting."""
    where = f"{work.name}, {work.passes} passes" if work.passes > 1 else work.name
    came = f"{format_bytes(work.pass_h2d_bytes)} copied in {format_seconds(work.pass_copy_s)}"
    copied = came if work.pass_h2d_bytes else "nothing copied"
    once = work.h2d_bytes - work.passes * work.pass_h2d_bytes
    entering = f"; {format_bytes(once)} more at its start" if once > 0 else ""
    return (
        f"{where}: one takes {format_seconds(work.pass_s)}, with {format_seconds(work.pass_compute_s)} of compute and"
        f" {copied}{entering}; waits {format_seconds(work.wait_s)} in all"
    )


def _show_step(plan: PlanDocument, explanation: Explanation) -> None:
    if plan.predicted is None or explanation.step_compute_s is None:
        return
    step = plan.predicted.step_s
    show_text()
    show_folded(
        f"step  {format_seconds(step.mid)} ({format_seconds(step.low)} to {format_seconds(step.high)}):"
        f" {format_seconds(explanation.step_compute_s)} of compute and {format_seconds(explanation.step_copy_s)} of"
        f" copies, limited by {_LIMITED_BY[plan.predicted.limiter]}",
        hanging=6,
    )


def _show_rules(plan: PlanDocument, explanation: Explanation) -> None:
    show_text()
    heading = "rule plan" if plan.policy.name == "search" else "rule"
    for fired in explanation.fired:
        show_folded(f"{heading}  {fired.id}: {fired.why}", hanging=len(heading) + 2)
    for blocked in explanation.blocked:
        show_folded(f"blocked  {blocked.id} by {blocked.by}")
    show_folded(f"typed  {' '.join(explanation.choices) or 'no choice of placement'}")


def _show_rates(explanation: Explanation) -> None:
    if not explanation.rates:
        return
    show_text()
    show_table(
        ("Rate", "Value", "Off by up to", "Source"),
        [
            (rate_name(name), rate_value(name, rate.value), off_by(rate.spread, rate.down), _source(rate))
            for name, rate in explanation.rates.items()
        ],
        numbers=(1, 2),
    )


def _source(rate: Rate) -> str:
    on = f" on {rate.when[:10]}" if rate.when else ""
    why = rate.why.removeprefix("prior: ") if rate.prior else rate.why  # the screen says where it comes from once
    return f"{rate.source}: {why}{on}"


def _placed(row: PlanRow, name: str) -> str:
    kept = f" with {row.resident_blocks[name]} blocks staying" if row.resident_blocks.get(name) else ""
    return f"{name} {row.strategies[name]}{kept}{' tiled' if name in row.tiled else ''}"


def show_alternatives(plan: PlanDocument, explanation: Explanation) -> None:
    """The plans that the search kept, the fastest first, and why each was not chosen."""
    show_text(plan_title(plan))
    if not explanation.plans:
        show_folded("no alternatives: this plan is the rules' alone; roost plan --policy search compares.")
        return
    show_table(
        ("Plan", "Seconds", "Delta", "VRAM", "Host", "Fits", "Front"),
        [
            (
                _names(row),
                format_seconds(row.seconds),
                "" if row.why_not is None else _signed(row.delta_s),
                format_bytes(row.peak_bytes),
                format_bytes(row.host_bytes),
                "yes" if row.fits else "no",
                "yes" if row.on_front else "",
            )
            for row in explanation.plans
        ],
        numbers=(1, 2, 3, 4),
    )
    for row in explanation.plans:
        show_folded(f"{row.names[0]}: {row.why_not or 'taken.'}")
        show_folded(", ".join(_placed(row, name) for name in row.strategies), indent="  ", hanging=0)
    generations = plan.policy.generations
    show_text(
        f"seconds are load + first{f' + {generations - 1} × next' if generations > 1 else ''}, host is masters' memory"
    )


def _names(row: PlanRow) -> str:
    return " = ".join(row.names)


def _signed(seconds: float) -> str:
    return f"{'−' if seconds < 0 else '+'}{format_seconds(abs(seconds))}"
