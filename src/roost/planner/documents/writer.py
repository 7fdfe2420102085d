"""From placements to the plan document."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from roost.facts.decider import spelled
from roost.facts.machine import Machine
from roost.facts.request import Choices
from roost.plan.budget import Budget, HostTurn
from roost.plan.fields import StackRecord
from roost.plan.figures import Alternative, Arithmetic, PlanComparison, Predicted, TraceRecord
from roost.plan.schema import (
    ChangedByDefault,
    ComponentPlan,
    MachineRecord,
    ModelRecord,
    PlanDocument,
    Policy,
)
from roost.planner.cost.budget import Verdict, stages
from roost.planner.documents.records import masters_of
from roost.planner.placements import Placement
from roost.planner.rules.case import Question
from roost.planner.rules.names import kind_of, load_order
from roost.planner.rules.typed import strategy_options
from roost.planner.ruling import Ruling
from roost.planner.search.columns import Aim


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What a search minimised, for how many generations, and the components that a run ``may_tile``."""

    aim: Aim
    generations: int
    may_tile: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a dry run and the cost model say of the placements."""

    trace: TraceRecord | None = None
    predicted: Predicted | None = None
    compared: PlanComparison | None = None
    arithmetic: Arithmetic | None = None
    alternatives: Sequence[Alternative] = ()
    also: Sequence[str] = ()
    changed: Sequence[ChangedByDefault] = ()
    host_turns: Sequence[HostTurn] = ()


def document_of(
    ruling: Ruling,
    placements: tuple[Placement, ...],
    verdict: Verdict,
    *,
    sought: Sought | None = None,
    figures: Figures | None = None,
    warnings: Sequence[str] = (),
) -> PlanDocument:
    """The document of these placements, a search's (``sought``) or the rules' own.

    ``warnings`` come after those on the model, the role and host memory.
    """
    question, figures = ruling.question, figures or Figures()
    return PlanDocument(
        schema=1,
        versions=dict(question.versions),
        model=_model(question),
        workload=question.workload,
        machine=MachineRecord(gpu=question.machine.gpu, host=question.machine.host),
        budget=_budget(question.machine, placements, verdict, figures.host_turns),
        fits=verdict.fits,
        certainty=verdict.certainty,
        changed_by_default=list(figures.changed),
        attention=question.attention,
        cache=question.cache,
        loras=[each for each in question.loras if each.component in {one.component.name for one in placements}],
        load_order=list(load_order(each.component for each in placements)),
        policy=_policy(ruling, sought),
        role=ruling.role,
        components={each.component.name: _component(each, sought) for each in placements},
        trace=figures.trace,
        predicted=figures.predicted,
        compared=figures.compared,
        arithmetic=figures.arithmetic,
        alternatives=list(figures.alternatives),
        also=list(figures.also),
        measured=None,
        warnings=[
            *question.inventory.warnings,
            *ruling.role.warnings,
            *verdict.warnings,
            *_cached(question, placements),
            *warnings,
        ],
    )


def _cached(question: Question, placements: Sequence[Placement]) -> list[str]:
    if question.cache is None:
        return []
    names = ", ".join(each.component.name for each in placements if kind_of(each.component) == "dit")
    return [f"steps of {names} skip {question.cache.skips} (--cache {question.cache.text}), which changes pictures."]


def _model(question: Question) -> ModelRecord:
    inventory = question.inventory
    # A name binds to any files of the same structure.
    files = inventory.files if inventory.source == "directory" else {}
    return ModelRecord(
        path=inventory.path,
        source=inventory.source,
        fingerprint=inventory.fingerprint,
        pipeline=inventory.pipeline or inventory.components[0].class_name,
        family=inventory.family,
        task=question.profile.task,
        variant=next((each.variant for each in inventory.components if each.variant), None),
        files=dict(files),
    )


def _budget(machine: Machine, placements: tuple[Placement, ...], verdict: Verdict, turns: Sequence[HostTurn]) -> Budget:
    listed = stages(placements)
    return Budget(
        total_bytes=machine.gpu.total_bytes,
        free_bytes=machine.gpu.free_bytes,
        headroom_bytes=machine.headroom_bytes,
        budget_bytes=machine.budget_bytes,
        stages=list(listed),
        peak_weights_bytes=max((stage.weights_bytes for stage in listed), default=0),
        deficit_bytes=verdict.deficit_bytes,
        host_bytes=verdict.host_bytes,
        host_reserved_bytes=machine.host.reserved_bytes,
        host_turns=list(turns),
        host_deficit_bytes=verdict.host_deficit_bytes,
        verdict=verdict.text,
        finding=verdict.finding,
        lacks=verdict.lacks,
        would_fit=list(verdict.would_fit),
        activations_known=verdict.activations_known,
    )


def _policy(ruling: Ruling, sought: Sought | None) -> Policy:
    choices, outcome, aim = ruling.question.choices, ruling.outcome, sought.aim if sought else Aim()
    return Policy(
        name="search" if sought else "rules",
        mode=choices.mode,
        num_gpus=choices.num_gpus,
        choices=list(_typed_options(choices)),
        layerwise_groups=list(outcome.layerwise_groups),
        fired=list(outcome.fired),
        blocked=list(outcome.blocked),
        generations=sought.generations if sought else 1,
        objective=aim.objective,
        max_slowdown=aim.max_slowdown if aim.objective == "memory" else None,
        allow=sorted(aim.allow),
        forbid=sorted(aim.forbid),
        certainty=aim.certainty,
        max_premium=aim.max_premium,
    )


def _typed_options(choices: Choices) -> tuple[str, ...]:
    """Every typed option that a rule reads, as typed."""
    flags = {
        f"--dit-offload-prefetch-size {choices.prefetch or 0:g}": choices.prefetch is not None,
        "--fsdp": choices.fsdp is True,
        "--no-fsdp": choices.fsdp is False,
        "--cache-dit": choices.cache_dit,
        f"--cache {choices.cache}": choices.cache is not None,
        f"--dmd-steps {choices.dmd_steps}": choices.dmd_steps is not None,
        f"--platform {choices.platform}": choices.platform is not None,
    }
    without_found = replace(choices, sets=tuple(each for each in choices.sets if not each.found))
    return (*strategy_options(without_found), *(flag for flag, typed in flags.items() if typed))


def _component(placement: Placement, sought: Sought | None) -> ComponentPlan:
    component, streaming = placement.component, placement.streaming
    searched = placement.decision.decided_by.kind == "search"
    return ComponentPlan(
        kind=kind_of(component),
        library=component.library,
        class_name=component.class_name,
        variant=component.variant,
        load_dtype=component.load_dtype,
        load_bytes=component.load_bytes,
        trunk_bytes=component.load_bytes - sum(unit.bytes for unit in component.units),
        stacks=[
            StackRecord(
                name=unit.name,
                count=unit.count,
                bytes=unit.bytes,
                largest_bytes=max(unit.block_bytes),
                leaves=list(unit.leaves),
            )
            for unit in component.units
        ],
        use_order=list(component.use_order) or None,
        strategy=placement.strategy,
        resident_blocks=streaming.resident_blocks if streaming else None,
        resident_policy=streaming.resident_policy if streaming else None,
        prefetch=streaming.prefetch if streaming else None,
        slots=streaming.slots if streaming else None,
        hold=streaming.hold if streaming else None,
        linger=placement.linger,
        # Of what moves as a whole, only the search says which tier its master has; by the rules it is pageable.
        master=masters_of(placement) if streaming or searched or placement.tier != "pageable" else None,
        tiling=placement.tiling,
        slicing=placement.slicing,
        may_tile=sought is not None and component.name in sought.may_tile,
        storage=component.storage,
        source=component.source,
        decided_by=spelled(placement.decision.decided_by),
        why=placement.decision.why,
    )
