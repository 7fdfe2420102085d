"""What a person has to know of a plan: whether it fits, what it takes, and what to do next."""

from __future__ import annotations

from roost.api.requests.request import workload_text
from roost.cli.screen import show_note, show_text
from roost.cli.views.plan_details import cached_text, change_text, file_texts, remedy_texts, show_placement
from roost.facts.request import Workload
from roost.plan.figures import Predicted
from roost.plan.schema import PlanDocument
from roost.planner.search.reasons import more_generations_text
from roost.units import format_bytes, format_seconds


def show_plan(plan: PlanDocument) -> None:
    """The verdict, what for, the seconds, the placement and the one warning that matters; or what would fit.

    Of what surely would fit in place of a plan that may not, the first is enough here.
    """
    show_text(plan.budget.verdict_alone)
    show_text(_about(plan))
    if plan.fits:
        if plan.predicted and not plan.predicted.guessed:
            show_text(_seconds(plan, plan.predicted))
            if plan.cache is not None and plan.predicted.cached_s is not None:
                show_text(cached_text(plan.cache, plan.predicted.cached_s))
        show_placement(plan)
    for text in file_texts(plan):
        show_text(text)
    show_remark(plan)
    for text in remedy_texts(plan.budget)[: 1 if plan.fits else None]:
        show_text(text)


def show_remark(plan: PlanDocument) -> None:
    """The one remark that matters most, and how many more there are."""
    remarks = [
        *(f"warning: {each}" for each in plan.warnings if plan.certainty == "likely"),
        *(f"changed: {change_text(each)}" for each in plan.changed_by_default),
        *(f"warning: {each}" for each in plan.warnings if plan.certainty != "likely"),
    ]
    if plan.compared is not None and plan.compared.more_generations is not None:
        strategies = {name: each.strategy for name, each in plan.components.items()}
        remarks.append(more_generations_text(plan.compared.more_generations, strategies))
    if remarks:
        more = f" ({len(remarks) - 1} more: -v)" if len(remarks) > 1 else ""
        show_text(remarks[0] + more)


def _about(plan: PlanDocument) -> str:
    model, host = plan.model, plan.machine.host
    total = sum(component.load_bytes for component in plan.components.values())
    role = f", role {plan.role.name}" if plan.role.name != "monolithic" else ""
    role += f", attention {plan.attention}" if plan.attention is not None else ""
    role += f", cache {plan.cache.text}" if plan.cache is not None else ""
    return (
        f"{model.family or model.pipeline} {format_bytes(total)}{role}, {workload_text(plan.workload)}"
        f" on {plan.machine.gpu.name}, host {format_bytes(host.available_bytes)}"
    )


def _seconds(plan: PlanDocument, predicted: Predicted) -> str:
    """The first output with loading, on which the search goes, and a later one."""
    total, then = predicted.first_total_s, predicted.next_s
    ends = f"{format_seconds(total.low)} to {format_seconds(total.high)}"
    guess = " (emulated: this CPU's)" if plan.machine.gpu.device_kind == "emulated" else ""
    what = "video" if plan.workload.frames else "picture"
    return (
        f"the first {what} takes {format_seconds(total.mid)} with loading ({ends}), a later one"
        f" {format_seconds(then.mid)}{guess}"
    )


def show_remedy_run(workload: Workload) -> None:
    """What takes a while after nothing surely fitted: a dry run of a smaller workload, or in another dtype."""
    show_note(f"looking for what would fit: dry-running {workload_text(workload)}")
