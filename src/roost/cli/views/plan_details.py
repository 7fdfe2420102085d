"""All of a plan, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from roost.api.requests.request import workload_text
from roost.cli.screen import show_labelled, show_table, show_text
from roost.cli.views.trials import show_trials
from roost.facts.decider import decider_of
from roost.facts.machine import HostFacts
from roost.facts.step_cache import StepCache
from roost.plan.budget import Budget
from roost.plan.figures import CachedSeconds, Predicted
from roost.plan.schema import ChangedByDefault, ComponentPlan, PlanDocument
from roost.planner.rules.table import RULES
from roost.planner.search.reasons import why_resident
from roost.shell_quoting import shown_path
from roost.units import format_bytes, format_seconds

_WORTH_SAYING = 1.02  # plain bytes over stored ones


def show_plan_details(plan: PlanDocument) -> None:
    """The model, the budget, one row a component, then why, what was blocked, and the verdict."""
    model, workload, gpu = plan.model, plan.workload, plan.machine.gpu
    total = sum(component.load_bytes for component in plan.components.values())
    show_text(f"{model.pipeline} · {model.family or 'unknown family'} · {format_bytes(total)} of weights loaded")
    show_text(
        f"for {workload_text(workload)} · mode {plan.policy.mode}, policy {plan.policy.name}"
        + (f", role {plan.role.name}" if plan.role.name != "monolithic" else "")
        + (f", attention {plan.attention}" if plan.attention is not None else "")
        + (f", cache {plan.cache.text}" if plan.cache is not None else "")
    )
    show_text(f"on {gpu.name}")
    show_text(
        f"{format_bytes(plan.budget.free_bytes)} free of {format_bytes(plan.budget.total_bytes)}"
        f" ({gpu.source}), headroom {format_bytes(plan.budget.headroom_bytes)},"
        f" budget {format_bytes(plan.budget.budget_bytes)}"
    )
    show_text(host_text(plan.machine.host))
    if plan.budget.host_turns:
        show_text(turns_text(plan.budget))
    if not plan.fits and plan.policy.name == "search":
        show_text("no plan fits; placement and figures below are those of the rules' plan:")
    show_placement(plan)
    for text in file_texts(plan):
        show_text(text)
    _show_reasons(plan)
    if plan.predicted:
        _show_prediction(plan.predicted, emulated=gpu.device_kind == "emulated")
        if plan.cache is not None and plan.predicted.cached_s is not None:
            show_text(cached_text(plan.cache, plan.predicted.cached_s))
        _show_measured(plan)
    else:
        for stage in plan.budget.stages:
            show_text(f"stage  {stage.name}: {format_bytes(stage.weights_bytes)} of weights on the GPU")
    if plan.measured:
        show_trials(plan.measured)
    for change in plan.changed_by_default:
        show_labelled("changed:", change_text(change))
    for warning in plan.warnings:
        show_labelled("warning:", warning)
    for lora in plan.loras:
        how = "fused into" if lora.fused else f"{format_bytes(lora.bytes)} beside"
        show_text(f"lora  {shown_path(lora.path)} × {lora.scale:g}: {how} {lora.component}")
    show_text(f"load order: {', '.join(plan.load_order)}")
    show_labelled("verdict:", plan.budget.verdict_alone)
    for text in remedy_texts(plan.budget):
        show_text(text)


def remedy_texts(budget: Budget) -> list[str]:
    """A line for each command whose plan would fit; surely, where this one may not."""
    return [f"would {'surely ' if budget.lacks is None else ''}fit  {each}" for each in budget.would_fit]


def cached_text(cache: StepCache, seconds: CachedSeconds) -> str:
    """Both ends of what a cache over steps may save."""
    return f"with the cache {cache.text} {format_seconds(seconds.low)} to {format_seconds(seconds.high)} with loading"


def host_text(host: HostFacts) -> str:
    """Host memory for weights, and the arithmetic behind it."""
    taken = {"system": host.system_bytes, "process": host.process_bytes}
    less = "".join(f", {who} {format_bytes(count)}" for who, count in taken.items() if count)
    there, budget = format_bytes(host.there_bytes), format_bytes(host.available_bytes)
    return f"{there} of host memory ({host.source}){less}, budget {budget}"


def turns_text(budget: Budget) -> str:
    """Whose masters are in host memory when, and what they would take together."""
    turns = [
        f"{format_bytes(each.host_bytes)} from {each.component} on ({', '.join(each.masters) or 'none'})"
        for each in budget.host_turns
    ]
    return (
        f"host memory in turns: {', '.join(turns)}; together {format_bytes(budget.all_masters_bytes)}. A run"
        " gives back what it needs no more."
    )


def file_texts(plan: PlanDocument) -> Iterator[str]:
    """A line for each file that components come from, and what they weigh in place of plain weights."""
    by_path: dict[str, list[str]] = {}
    for name in plan.load_order:
        source = plan.components[name].source
        if source is not None:
            by_path.setdefault(source.path, []).append(name)
    for path, names in by_path.items():
        components = [plan.components[name] for name in names]
        formats = " + ".join(dict.fromkeys(each.source.format for each in components if each.source))
        yield f"{', '.join(names)} from {Path(path).name} ({formats}): {_weighs(components)}"


def _weighs(components: Sequence[ComponentPlan]) -> str:
    """Bytes, of plain weights too where they would be more; of what streams as a whole they are those of a pass."""
    own = sum(each.load_bytes for each in components)
    plain = sum((each.source and each.source.plain_bytes) or each.load_bytes for each in components)
    streams = all(each.strategy == "layerwise-offload" and not each.resident_blocks for each in components)
    saved = f" instead of {format_bytes(plain)}" if plain > own * _WORTH_SAYING else ""
    return f"{'streams' if streams else 'weighs'} {format_bytes(own)}{saved}{' a pass' if streams else ''}"


def show_placement(plan: PlanDocument) -> None:
    """One row a component, in load order."""
    show_table(
        ("Component", "Strategy", "Blocks", "Loaded", "Decided by"),
        [_row(name, plan.components[name]) for name in plan.load_order],
        numbers=(3,),
    )


def change_text(change: ChangedByDefault) -> str:
    """What is done though nobody typed it, what it costs, and how to keep it from being done."""
    costs = f"costs {format_seconds(change.seconds)}" if change.seconds > 0 else "costs no time"
    how, whole = ("in tiles", "as a whole") if change.what == "tiling" else ("one after another", "all at once")
    return (
        f"{change.component} decodes {how}, which {costs} and changes bits: {whole} it does not surely fit;"
        f" --forbid {change.what} forbids it."
    )


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
        show_labelled(f"why  {', '.join(names)}:", why if len(names) == 1 else _why_several(plan, names[0]) or why)
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
    noun = " layers" if component.leaf_level else ""
    return f"{count} held" if component.hold else f"{component.resident_blocks} of {count}{noun} stay"


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
        show_labelled("note ", note)


def _show_measured(plan: PlanDocument) -> None:
    """What of the prediction comes from this machine rather than from data sheets."""
    if plan.arithmetic is None:
        return
    rates = plan.arithmetic.rates.values()
    known = [each for each in rates if each.when]
    factors = [name for name, each in plan.arithmetic.kappas.items() if each.fitted]
    used = [name for name in factors if any(part.class_name == name for part in plan.components.values())]
    if used:
        show_labelled("predicted ", f"uses activation factors fitted on this machine: {', '.join(used)}.")
    if known:
        dates = sorted({(each.when or "")[:10] for each in known})
        fitted = sum(each.source == "fitted" for each in known)
        show_labelled(
            "predicted ",
            f"uses rates measured on this machine on {' to '.join(dict.fromkeys((dates[0], dates[-1])))}:"
            f" {len(known) - fitted} of {len(rates)} timed by themselves, {fitted} fitted to runs; --no-measured plans"
            " without.",
        )
