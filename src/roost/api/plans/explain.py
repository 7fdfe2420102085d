"""Explaining: a plan document's decisions with the arithmetic behind each, from the document alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic_core import to_jsonable_python

from roost.api.plans.explanation import ComponentAccount, Explanation, IfResident, PlanRow, StageSum
from roost.facts.request import Strategy
from roost.facts.stage import DENOISING
from roost.plan.figures import AlternativeComponent, Arithmetic
from roost.plan.schema import ComponentPlan, PlanDocument

_SHOWN = {"model", "workload", "machine", "budget", "fits", "policy", "predicted", "measured", "warnings"}
_STAYS: tuple[Strategy, ...] = ("resident", "fsdp")


def explain_plan(plan: PlanDocument) -> Explanation:
    """The arithmetic of every decision in ``plan``; needs neither the model nor a GPU."""
    stages = _predicted_stages(plan, plan.arithmetic) if plan.arithmetic else _weighed_stages(plan)
    denoising = [each for each in (plan.arithmetic.stages if plan.arithmetic else []) if each.phase in DENOISING]
    steps = max(1, plan.workload.steps_run)
    return Explanation(
        stages=stages,
        components=tuple(_account(plan, name, stages) for name in plan.load_order),
        step_compute_s=sum(each.compute_s for each in denoising) / steps if denoising else None,
        step_copy_s=sum(each.copy_s for each in denoising) / steps if denoising else None,
        fired=tuple(plan.policy.fired),
        blocked=tuple(plan.policy.blocked),
        choices=tuple(plan.policy.choices),
        rates=plan.arithmetic.rates if plan.arithmetic else {},
        plans=tuple(_rows(plan)),
    )


def explanation_document(plan: PlanDocument, explanation: Explanation) -> dict[str, object]:
    """The explanation as the JSON object of ``roost explain --json``, schema 1, with what the plan is for."""
    shown = plan.model_dump(mode="json", by_alias=True, include=_SHOWN, exclude={"model": {"files"}})
    return {"schema": 1, "plan": shown, **to_jsonable_python(explanation)}


def _predicted_stages(plan: PlanDocument, arithmetic: Arithmetic) -> tuple[StageSum, ...]:
    predicted = {(each.component, each.phase): each for each in plan.predicted.stages} if plan.predicted else {}
    own = {each.component: each.own_bytes for each in arithmetic.stages}
    staying = {
        name: own.get(name, component.load_bytes)
        for name, component in plan.components.items()
        if component.strategy in _STAYS
    }
    found = []
    for work in arithmetic.stages:
        stage = predicted.get((work.component, work.phase))
        weights = {**staying, work.component: work.own_bytes}
        beside = arithmetic.context_bytes + work.activation_bytes
        peak = stage.peak_bytes if stage else beside + sum(weights.values())
        found.append(
            StageSum(
                name=work.name,
                phase=work.phase,
                weights=weights,
                weights_bytes=peak - beside,
                context_bytes=arithmetic.context_bytes,
                activation_bytes=work.activation_bytes,
                peak_bytes=peak,
                left_bytes=plan.budget.budget_bytes - peak,
                seconds=stage.seconds if stage else None,
                binding=stage.binding if stage else None,
            )
        )
    return tuple(found)


def _weighed_stages(plan: PlanDocument) -> tuple[StageSum, ...]:
    return tuple(
        StageSum(
            name=stage.name,
            weights=stage.components,
            weights_bytes=stage.weights_bytes,
            context_bytes=None,
            activation_bytes=None,
            peak_bytes=stage.weights_bytes,
            left_bytes=plan.budget.budget_bytes - stage.weights_bytes,
        )
        for stage in plan.budget.stages
    )


def _account(plan: PlanDocument, name: str, stages: Sequence[StageSum]) -> ComponentAccount:
    component = plan.components[name]
    blocks = sum(stack.count for stack in component.stacks)
    work = tuple(each for each in (plan.arithmetic.stages if plan.arithmetic else []) if each.component == name)
    bindings = {
        (each.component, each.phase): each.binding for each in (plan.predicted.stages if plan.predicted else [])
    }
    slowest = max(work, key=lambda each: each.compute_s + each.wait_s, default=None)
    stays = component.strategy in _STAYS
    held = component.resident_blocks is not None and bool(component.hold)
    return ComponentAccount(
        name=name,
        strategy=component.strategy,
        decided_by=component.decided_by,
        why=component.why,
        load_bytes=component.load_bytes,
        device_bytes=max((each.weights.get(name, 0) for each in stages), default=0),
        blocks=blocks,
        resident_blocks=blocks if component.resident_blocks is None else component.resident_blocks,
        held=held,
        slots=component.slots,
        leaf_level=component.leaf_level,
        prefetch=component.prefetch,
        tiling=component.tiling,
        work=work,
        binding=bindings.get((name, slowest.phase)) if slowest else None,
        if_resident=None if stays else _if_resident(plan, name, stages),
    )


def _if_resident(plan: PlanDocument, name: str, stages: Sequence[StageSum]) -> IfResident | None:
    needed = plan.components[name].load_bytes
    # Without what lingers in a stage: that leaves when its room is needed.
    peaks = [
        needed
        + sum(size for other, size in stage.weights.items() if other != name)
        + (stage.context_bytes or 0)
        + (stage.activation_bytes or 0)
        for stage in stages
    ]
    if not peaks:
        return None
    tightest = peaks.index(max(peaks))
    return IfResident(
        stage=stages[tightest].name,
        peak_bytes=peaks[tightest],
        short_bytes=max(0, peaks[tightest] - plan.budget.budget_bytes),
    )


def _rows(plan: PlanDocument) -> Iterable[PlanRow]:
    """The chosen plan and the alternatives, the fastest first; none in a plan without a prediction."""
    if plan.predicted is None:
        return []
    chosen = [("chosen" if plan.fits else "rule plan", *plan.also)]
    names = [*chosen, *((each.name, *each.also) for each in plan.alternatives)]
    predictions = [plan.predicted, *(each.predicted for each in plan.alternatives)]
    placed: list[Mapping[str, ComponentPlan | AlternativeComponent]] = [
        plan.components,
        *(each.components for each in plan.alternatives),
    ]
    reasons = [None, *(each.why_not for each in plan.alternatives)]
    figures = [(each.total_s.mid, each.peak_bytes.mid, each.host_bytes) for each in predictions]
    budget_bytes = plan.budget.budget_bytes
    rows = [
        PlanRow(
            names=names[index],
            seconds=here[0],
            delta_s=here[0] - figures[0][0],
            peak_bytes=here[1],
            host_bytes=here[2],
            fits=here[1] <= budget_bytes,
            on_front=here[1] <= budget_bytes
            and not any(_beats(other, here) for other in figures if other[1] <= budget_bytes),
            strategies={name: each.strategy for name, each in placed[index].items()},
            resident_blocks={
                name: each.resident_blocks for name, each in placed[index].items() if each.resident_blocks is not None
            },
            tiled=tuple(name for name, each in placed[index].items() if each.tiling),
            why_not=reasons[index],
        )
        for index, here in enumerate(figures)
    ]
    return sorted(rows, key=lambda row: row.seconds)


def _beats(other: tuple[float, int, int], here: tuple[float, int, int]) -> bool:
    return other != here and all(theirs <= ours for theirs, ours in zip(other, here, strict=True))
