"""Comparing two plans: what they are for, what they decide, and what they predict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

from roost.plan.schema import ComponentPlan, PlanDocument

Value = str | int | float | bool | None
Unit = Literal["bytes", "seconds", "rate"]

_DECIDED = (
    "strategy", "leaf_level", "resident_blocks", "resident_policy", "prefetch", "slots", "hold", "linger", "tiling",
    "slicing", "storage", "load_dtype", "load_bytes",
)  # fmt: skip
_SECONDS = ("load_s", "first_s", "next_s", "step_s", "total_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that differs: ``about`` a component, the model, the workload, …; None where a plan lacks it."""

    about: str
    what: str
    before: Value
    after: Value
    unit: Unit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDifferences:
    """What differs between two plans. ``subjects`` are what the plans are for: with any, figures compare little.

    ``causes`` are what may have led to other decisions: options, rules, rates, versions.
    """

    same_model: bool
    same_workload: bool
    same_machine: bool
    subjects: tuple[Difference, ...]
    decisions: tuple[Difference, ...]
    figures: tuple[Difference, ...]
    causes: tuple[Difference, ...]


def diff_plans(before: PlanDocument, after: PlanDocument) -> PlanDifferences:
    """What changed from one plan to the other."""
    model, workload = tuple(_model(before, after)), tuple(_workload(before, after))
    machine = tuple(_machine(before, after))
    return PlanDifferences(
        same_model=not model,
        same_workload=not workload,
        same_machine=not machine,
        subjects=(*model, *workload, *machine),
        decisions=tuple(_decisions(before, after)),
        figures=tuple(_figures(before, after)),
        causes=tuple(_causes(before, after)),
    )


def _changed(about: str, what: str, before: Value, after: Value, unit: Unit | None = None) -> Iterator[Difference]:
    if before != after:
        yield Difference(about=about, what=what, before=before, after=after, unit=unit)


def _model(before: PlanDocument, after: PlanDocument) -> Iterator[Difference]:
    """By structure and content, not by path: the same model may lie elsewhere."""
    for name in ("family", "pipeline", "variant", "fingerprint"):
        yield from _changed("model", name, getattr(before.model, name), getattr(after.model, name))


def _workload(before: PlanDocument, after: PlanDocument) -> Iterator[Difference]:
    for name in (each.name for each in fields(before.workload)):
        yield from _changed("workload", name, getattr(before.workload, name), getattr(after.workload, name))


def _machine(before: PlanDocument, after: PlanDocument) -> Iterator[Difference]:
    gpus, hosts = (before.machine.gpu, after.machine.gpu), (before.machine.host, after.machine.host)
    for name in ("name", "device_kind", "platform", "pcie_generation", "pcie_width", "driver"):
        yield from _changed("GPU", name, getattr(gpus[0], name), getattr(gpus[1], name))
    for name in ("total_bytes", "free_bytes", "headroom_bytes", "budget_bytes"):
        yield from _changed("GPU", name, getattr(before.budget, name), getattr(after.budget, name), "bytes")
    for name in ("available_bytes", "pinnable_bytes"):
        yield from _changed("host", name, getattr(hosts[0], name), getattr(hosts[1], name), "bytes")


def _decisions(before: PlanDocument, after: PlanDocument) -> Iterator[Difference]:
    for name in dict.fromkeys((*before.load_order, *after.load_order)):
        one, other = before.components.get(name), after.components.get(name)
        if one is None or other is None:
            strategies = one.strategy if one else None, other.strategy if other else None
            yield from _changed(name, "component", *strategies)
        else:
            yield from _component(name, one, other)
    yield from _changed("plan", "attention", before.attention, after.attention)
    one_cache, other_cache = (None if each.cache is None else each.cache.text for each in (before, after))
    yield from _changed("plan", "cache", one_cache, other_cache)
    yield from _changed("plan", "load_order", ", ".join(before.load_order), ", ".join(after.load_order))
    yield from _changed("plan", "fits", before.fits, after.fits)
    yield from _changed("fleet", "layout", before.layout, after.layout)
    for role in dict.fromkeys(each.role for each in (*before.workers, *after.workers)):
        some, others = (sum(each.role == role for each in plan.workers) for plan in (before, after))
        yield from _changed("fleet", f"workers as {role}", some, others)


def _component(name: str, before: ComponentPlan, after: ComponentPlan) -> Iterator[Difference]:
    another = before.strategy != after.strategy
    for what in _DECIDED:
        values = getattr(before, what), getattr(after, what)
        if another and None in values:  # a parameter of one of the two strategies
            continue
        yield from _changed(name, what, *values, "bytes" if what.endswith("_bytes") else None)
    if before.master and after.master:
        for tier in ("pinned", "pageable", "mapped"):
            yield from _changed(name, f"{tier} masters", getattr(before.master, tier), getattr(after.master, tier))
    yield from _changed(name, "decided_by", before.decided_by, after.decided_by)


def _figures(before: PlanDocument, after: PlanDocument) -> Iterator[Difference]:
    one, other = before.predicted, after.predicted
    yield from _changed("predicted", "prediction", one is not None, other is not None)
    if one and other:
        for name in _SECONDS:
            yield from _changed("predicted", name, getattr(one, name).mid, getattr(other, name).mid, "seconds")
        yield from _changed("predicted", "peak_bytes", one.peak_bytes.mid, other.peak_bytes.mid, "bytes")
        for name in ("host_bytes", "pinned_bytes"):
            yield from _changed("predicted", name, getattr(one, name), getattr(other, name), "bytes")
        yield from _changed("predicted", "limiter", one.limiter, other.limiter)
    if before.fleet and after.fleet:
        for name in ("requests_per_s", "request_s"):
            values = getattr(before.fleet, name).mid, getattr(after.fleet, name).mid
            yield from _changed("fleet", name, *values, "seconds" if name == "request_s" else None)
    if before.measured and after.measured:
        times = before.measured, after.measured
        yield from _changed("measured", "step_s", times[0].step_s.mean, times[1].step_s.mean, "seconds")
        yield from _changed("measured", "total_s", times[0].total_s, times[1].total_s, "seconds")
        yield from _changed("measured", "peak_bytes", times[0].peak_bytes, times[1].peak_bytes, "bytes")
    weights = before.budget.peak_weights_bytes, after.budget.peak_weights_bytes
    yield from _changed("weights", "peak_bytes", *weights, "bytes")


def _causes(before: PlanDocument, after: PlanDocument) -> Iterator[Difference]:
    policies = before.policy, after.policy
    for name in ("name", "mode", "num_gpus", "generations", "objective", "max_slowdown"):
        yield from _changed("policy", name, getattr(policies[0], name), getattr(policies[1], name))
    yield from _changed("policy", "allow", ", ".join(policies[0].allow), ", ".join(policies[1].allow))
    yield from _changed("policy", "typed", " ".join(policies[0].choices), " ".join(policies[1].choices))
    fired = {each.id for each in policies[0].fired}, {each.id for each in policies[1].fired}
    for rule in sorted(fired[0] ^ fired[1]):
        yield from _changed("rule", rule, rule in fired[0], rule in fired[1])
    rates = [each.arithmetic.rates if each.arithmetic else {} for each in (before, after)]
    for name in sorted(rates[0].keys() & rates[1].keys()):
        yield from _changed("rate", name, rates[0][name].value, rates[1][name].value, "rate")
    if before.trace and after.trace:
        yield from _changed("trace", "source", before.trace.source, after.trace.source)
    for name in sorted({*before.versions, *after.versions}):
        yield from _changed("version", name, before.versions.get(name), after.versions.get(name))
