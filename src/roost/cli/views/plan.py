"""How a plan looks to a person."""

from __future__ import annotations

from textwrap import wrap

from roost.api.requests.request import workload_text
from roost.cli.screen import clean, show_folded, show_note, show_table, show_text
from roost.facts.decider import decider_of
from roost.facts.request import Workload
from roost.plan.figures import Predicted
from roost.plan.schema import ComponentPlan, PlanDocument
from roost.plan.trials import Measured, Rival
from roost.planner.rules.table import RULES
from roost.planner.search.reasons import why_resident
from roost.units import format_bytes, format_measured, format_seconds

_WIDTH = 80


def show_plan(plan: PlanDocument) -> None:
    """The model, the budget, one row a component, then why, what was blocked, and the verdict."""
    model, workload, gpu = plan.model, plan.workload, plan.machine.gpu
    total = sum(component.load_bytes for component in plan.components.values())
    show_text(f"{model.pipeline} · {model.family or 'unknown family'} · {format_bytes(total)} of weights loaded")
    show_text(
        f"for {workload_text(workload)} · mode {plan.policy.mode}, policy {plan.policy.name}"
        + (f", role {plan.role.name}" if plan.role.name != "monolithic" else "")
        + (f", attention {plan.attention}" if plan.attention is not None else "")
    )
    host = plan.machine.host
    show_text(f"on {gpu.name} · host {format_bytes(host.available_bytes)} ({host.source})")
    show_text(
        f"{format_bytes(plan.budget.free_bytes)} free of {format_bytes(plan.budget.total_bytes)}"
        f" ({gpu.source}), headroom {format_bytes(plan.budget.headroom_bytes)},"
        f" budget {format_bytes(plan.budget.budget_bytes)}"
    )
    if not plan.fits and plan.policy.name == "search":
        show_text("no plan fits; placement and figures below are those of the rules' plan:")
    show_table(
        ("Component", "Strategy", "Blocks", "Loaded", "Decided by"),
        [_row(name, plan.components[name]) for name in plan.load_order],
        numbers=(3,),
    )
    _show_reasons(plan)
    if plan.predicted:
        _show_prediction(plan.predicted, emulated=gpu.device_kind == "emulated")
        _show_measured(plan)
    else:
        for stage in plan.budget.stages:
            show_text(f"stage  {stage.name}: {format_bytes(stage.weights_bytes)} of weights on the GPU")
    if plan.measured:
        show_trials(plan.measured)
    for warning in plan.warnings:
        _show_labelled("warning:", warning)
    show_text(f"load order: {', '.join(plan.load_order)}")
    _show_labelled("verdict:", plan.budget.verdict_alone)
    for remedy in plan.budget.would_fit:
        show_text(f"would fit  {remedy}")


def show_remedy_run(workload: Workload) -> None:
    """What takes a while after nothing fitted: a dry run of a smaller workload."""
    show_note(f"it does not fit, and a smaller workload may; dry-running {workload_text(workload)}")


def _show_labelled(label: str, text: str) -> None:
    """A paragraph after its label, as wide as a terminal usually is."""
    for line in wrap(f"{label} {clean(text)}", _WIDTH, subsequent_indent="  ", break_long_words=False):
        show_text(line)


def _row(name: str, component: ComponentPlan) -> tuple[str, ...]:
    decider = decider_of(component.decided_by)
    decided_by = decider.detail if decider.kind in ("rule", "flag") else component.decided_by
    strategy = component.strategy if component.storage is None else f"{component.strategy}, fp8"
    return name, strategy, _blocks(component), format_bytes(component.load_bytes), decided_by


def _show_reasons(plan: PlanDocument) -> None:
    reasons: dict[str, list[str]] = {}
    for name in plan.load_order:
        reasons.setdefault(plan.components[name].why, []).append(name)
    for why, names in reasons.items():
        _show_labelled(f"why  {', '.join(names)}:", why if len(names) == 1 else _why_several(plan, names[0]) or why)
    for name in plan.load_order:
        if plan.components[name].strategy == "layerwise-offload":
            show_text(f"stream  {name}: {_streaming(plan.components[name])}")
    for blocked in plan.policy.blocked:
        show_text(f"blocked  {blocked.id} by {blocked.by}")


def _why_several(plan: PlanDocument, name: str) -> str | None:
    """The reason that several components share with this one, said of all; None where it speaks of none."""
    component = plan.components[name]
    decider = decider_of(component.decided_by)
    if decider.kind == "rule":
        return next((rule.why_several for rule in RULES if rule.id == decider.detail), None)
    # A search that compares nothing goes by weights alone, and its reason is another one.
    if decider.kind != "search" or component.strategy != "resident" or plan.compared is None:
        return None
    return why_resident(tiled=component.tiling, rounded=component.storage is not None, several=True)


def _blocks(component: ComponentPlan) -> str:
    count = sum(stack.count for stack in component.stacks)
    if component.resident_blocks is None:
        return f"{count}, lingers" if component.linger else str(count)
    return f"{count} held" if component.hold else f"{component.resident_blocks} of {count} stay"


def _streaming(component: ComponentPlan) -> str:
    tiers = component.master.model_dump() if component.master else {}
    masters = ", ".join(f"{count} {tier}" for tier, count in tiers.items() if count) or "no"
    return f"prefetch {component.prefetch}, {component.slots} slots, {masters} masters"


def _show_prediction(predicted: Predicted, *, emulated: bool) -> None:
    """Stages, then the totals with their ends, then the comparisons."""
    show_table(
        ("Stage", "Seconds", "Peak", "Limited by"),
        [
            (each.name, format_seconds(each.seconds), format_bytes(each.peak_bytes), each.binding)
            for each in predicted.stages
        ],
        numbers=(1, 2),
    )
    peak = predicted.peak_bytes
    seconds = {
        "load": predicted.load_s,
        "first": predicted.first_s,
        "next": predicted.next_s,
        "a step": predicted.step_s,
    }
    show_table(
        ("Predicted", "Likely", "At best", "At worst"),
        [
            *(
                (name, *(format_seconds(end) for end in (each.mid, each.low, each.high)))
                for name, each in seconds.items()
            ),
            ("VRAM peak", *(format_bytes(end) for end in (peak.mid, peak.low, peak.high))),
        ],
        numbers=(1, 2, 3),
    )
    source = "weights only" if predicted.guessed else predicted.source  # why there was no dry run is a warning below
    show_text(f"predicted  a step is limited by {predicted.limiter}; calls known from: {source}")
    show_text(
        f"predicted  host {format_bytes(predicted.host_bytes)}, {format_bytes(predicted.pinned_bytes)} of it pinned"
    )
    if emulated:
        show_text("predicted  emulated: the seconds are this CPU's, a guess until runs have told")
    for note in predicted.notes:
        _show_labelled("note ", note)


def _show_measured(plan: PlanDocument) -> None:
    """What of the prediction comes from this machine rather than from data sheets."""
    if plan.arithmetic is None:
        return
    rates = plan.arithmetic.rates.values()
    known = [each for each in rates if each.when]
    factors = [name for name, each in plan.arithmetic.kappas.items() if each.fitted]
    used = [name for name in factors if any(part.class_name == name for part in plan.components.values())]
    if used:
        _show_labelled("predicted ", f"uses activation factors fitted on this machine: {', '.join(used)}.")
    if known:
        dates = sorted({(each.when or "")[:10] for each in known})
        fitted = sum(each.source == "fitted" for each in known)
        _show_labelled(
            "predicted ",
            f"uses rates measured on this machine on {' to '.join(dict.fromkeys((dates[0], dates[-1])))}:"
            f" {len(known) - fitted} of {len(rates)} timed by themselves, {fitted} fitted to runs; --no-measured plans"
            " without.",
        )


# What a plan says of the trials that it won.


def show_trials(measured: Measured) -> None:
    """What the plan took, and how the others did beside it."""
    step = measured.step_s
    spread = "" if step.sd is None else f" ± {format_measured(step.sd, like=step.mean)}"
    peak = "" if measured.peak_bytes is None else f", peak {format_bytes(measured.peak_bytes)}"
    show_text(
        f"measured  a step {format_measured(step.mean)}{spread}, a generation {format_seconds(measured.total_s)}{peak}"
    )
    rounds = f"{measured.rounds} round{'s' if measured.rounds > 1 else ''} of {measured.trial_steps} steps"
    where = " on the emulated device, not a GPU" if measured.device_kind == "emulated" else ""
    show_folded(f"measured  in {rounds}{where}, {measured.when}")
    for rival in measured.rivals:
        show_folded(f"measured  {rival.name}: {_result(rival)}")


def _result(rival: Rival) -> str:
    if rival.ratio is None:
        return f"{rival.status}: {rival.reason}" if rival.reason else rival.status
    error = "" if rival.ratio_error is None else f" ± {rival.ratio_error:.2f}"
    return f"{rival.ratio:.2f}{error} × the time"
