"""From placements to the plan document."""

from __future__ import annotations

from dataclasses import asdict, replace

from roost.facts.decider import spelled
from roost.facts.machine import Machine
from roost.facts.request import Choices
from roost.plan.schema import (
    Blocked,
    Budget,
    ComponentPlan,
    FileRecord,
    Fired,
    GpuRecord,
    HostRecord,
    MachineRecord,
    ModelRecord,
    PlanDocument,
    Policy,
    RolePlan,
    StackRecord,
    StageWeights,
    WorkloadRecord,
)
from roost.planner.cost.budget import Verdict, judge, pool_warnings
from roost.planner.documents.records import masters_of
from roost.planner.placements import Placement
from roost.planner.rules.case import Question
from roost.planner.rules.names import kind_of, load_order
from roost.planner.rules.roles import STAGES, RoleView
from roost.planner.rules.table import Outcome
from roost.planner.rules.typed import strategy_options
from roost.units import format_bytes


def document_of(
    question: Question, role: RoleView, outcome: Outcome, placements: tuple[Placement, ...]
) -> PlanDocument:
    """The document of a rule plan, its verdict on weights alone."""
    verdict = judge(placements, question.machine)
    return PlanDocument(
        schema=1,
        versions=dict(question.versions),
        model=_model(question),
        workload=WorkloadRecord(**asdict(question.workload)),
        machine=MachineRecord(
            gpu=GpuRecord(**asdict(question.machine.gpu)), host=HostRecord(**asdict(question.machine.host))
        ),
        budget=_budget(question.machine, verdict),
        fits=verdict.fits,
        load_order=list(load_order(each.component for each in placements)),
        policy=_policy(question, outcome),
        role=_role(role),
        components={each.component.name: _component(each) for each in placements},
        predicted=None,
        measured=None,
        warnings=[*question.inventory.warnings, *role.warnings, *_host_warnings(question.machine, verdict)],
    )


def _model(question: Question) -> ModelRecord:
    inventory = question.inventory
    files = (
        inventory.files if inventory.source == "directory" else {}
    )  # a name binds to any files of the same structure
    return ModelRecord(
        path=inventory.path,
        source=inventory.source,
        fingerprint=inventory.fingerprint,
        pipeline=inventory.pipeline or inventory.components[0].class_name,
        family=inventory.family,
        task=question.profile.task,
        variant=next((each.variant for each in inventory.components if each.variant), None),
        files={name: FileRecord(bytes=each.bytes, sha256=each.sha256) for name, each in files.items()},
    )


def _budget(machine: Machine, verdict: Verdict) -> Budget:
    return Budget(
        total_bytes=machine.gpu.total_bytes,
        free_bytes=machine.gpu.free_bytes,
        headroom_bytes=machine.headroom_bytes,
        budget_bytes=machine.budget_bytes,
        stages=[
            StageWeights(name=stage.name, components=stage.weights, weights_bytes=stage.weights_bytes)
            for stage in verdict.stages
        ],
        peak_weights_bytes=verdict.peak.weights_bytes if verdict.peak else 0,
        deficit_bytes=verdict.deficit_bytes,
        host_bytes=verdict.host_bytes,
        host_deficit_bytes=verdict.host_deficit_bytes,
        verdict=verdict.text,
        activations_known=False,
    )


def _policy(question: Question, outcome: Outcome) -> Policy:
    return Policy(
        name="rules",
        mode=question.choices.mode,
        num_gpus=question.choices.num_gpus,
        choices=list(typed_options(question.choices)),
        layerwise_groups=list(outcome.layerwise_groups),
        fired=[Fired(id=rule, why=why) for rule, why in outcome.fired],
        blocked=[Blocked(id=rule, by=by) for rule, by in outcome.blocked],
    )


def typed_options(choices: Choices) -> tuple[str, ...]:
    """Every typed option that a rule reads, as typed."""
    flags = {
        f"--dit-offload-prefetch-size {choices.prefetch or 0:g}": choices.prefetch is not None,
        "--fsdp": choices.fsdp is True,
        "--no-fsdp": choices.fsdp is False,
        "--cache-dit": choices.cache_dit,
        f"--dmd-steps {choices.dmd_steps}": choices.dmd_steps is not None,
        f"--platform {choices.platform}": choices.platform is not None,
    }
    without_found = replace(choices, sets=tuple(each for each in choices.sets if not each.found))
    return (*strategy_options(without_found), *(flag for flag, typed in flags.items() if typed))


def _role(role: RoleView) -> RolePlan:
    return RolePlan(
        name=role.role,
        stages=list(STAGES[role.role]),
        loads=list(role.loads),
        keeps=list(role.keeps),
        skips=list(role.skips),
        load_bytes=role.load_bytes,
        warnings=list(role.warnings),
    )


def _component(placement: Placement) -> ComponentPlan:
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
        stacks=[StackRecord(name=unit.name, count=unit.count, bytes=unit.bytes) for unit in component.units],
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
        storage=component.storage,
        decided_by=spelled(placement.decision.decided_by),
        why=placement.decision.why,
    )


def _host_warnings(machine: Machine, verdict: Verdict) -> list[str]:
    shared = pool_warnings(machine)
    if shared or not verdict.host_deficit_bytes:
        return shared
    return [
        f"host memory is {format_bytes(verdict.host_deficit_bytes)} short of the {format_bytes(verdict.host_bytes)}"
        f" that offloaded weights need ({format_bytes(machine.host.available_bytes)} available)."
    ]
