"""The plan document's schema: strict, every key always present, bytes as integers, seconds as floats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from roost.facts.decider import Blocked, Fired
from roost.facts.limits import Bytes, Label, Name, Positive, Sha256
from roost.facts.machine import GpuFacts, HostFacts
from roost.facts.model import FileSource, Kind, ModelSource, RolePart, StoredFile, Task
from roost.facts.request import LayoutName, Mode, Storage, Strategy, Workload
from roost.facts.resident_policy import check_policy
from roost.facts.step_cache import StepCache
from roost.plan import earlier
from roost.plan.budget import Budget
from roost.plan.fields import (
    FACT,
    ComponentName,
    Count,
    LoadDtype,
    Masters,
    PolicyText,
    RelativePath,
    StackRecord,
    Strict,
)
from roost.plan.figures import Alternative, Arithmetic, PlanComparison, Predicted, TraceRecord
from roost.plan.fleet import FleetRecord, LayoutRecord, WorkerRecord
from roost.plan.loras import PlannedLora
from roost.plan.trials import Measured

SCHEMA_VERSION = 1

# Whether what a fitting plan needs is surely there, or likely.
Certainty = Literal["sure", "likely"]


class ModelRecord(Strict):
    """Which model the plan is for. ``path`` is a directory's, else null: of a name alone, or a pipeline in memory."""

    path: str | None
    source: ModelSource = "directory"
    fingerprint: Sha256
    pipeline: Name
    family: Name | None
    task: Task
    variant: Name | None
    files: dict[RelativePath, Annotated[StoredFile, FACT]]

    _from_earlier = model_validator(mode="before")(staticmethod(earlier.model_facts))

    @model_validator(mode="after")
    def _directories_have_paths(self) -> ModelRecord:
        if (self.path is not None) != (self.source == "directory"):
            raise ValueError(f"path must be {'set' if self.source == 'directory' else 'null'} for a {self.source}")
        return self


class MachineRecord(Strict):
    """What the plan was made for; ``earlier`` knows what older plans lack."""

    gpu: Annotated[GpuFacts, FACT, BeforeValidator(earlier.gpu_facts)]
    host: Annotated[HostFacts, FACT, BeforeValidator(earlier.host_facts)]


class Policy(Strict):
    """What decided. From ``generations`` on: what a search minimised, what it might lose, and how sure it had to be."""

    name: Literal["rules", "search"]
    mode: Mode
    num_gpus: Positive
    choices: list[str]
    layerwise_groups: list[Name]
    fired: list[Annotated[Fired, FACT]]
    blocked: list[Annotated[Blocked, FACT]]
    generations: Positive = 1
    objective: Literal["seconds", "memory"] = "seconds"
    max_slowdown: float | None = None
    allow: list[Literal["tiling", "slicing", "fp8"]] = Field(default_factory=list)
    forbid: list[Literal["tiling", "slicing", "fp8"]] = Field(default_factory=list)
    certainty: Certainty = "sure"
    max_premium: float = 1.05


class ChangedByDefault(Strict):
    """What a plan changes though nobody typed it, and the seconds that this costs (below 0: saves)."""

    component: Name
    what: Literal["tiling", "slicing"]
    seconds: Annotated[float, Field(allow_inf_nan=False)]


class ComponentPlan(Strict):
    """Where one component's weights live. The layerwise parameters are null under every other strategy.

    ``master`` is also set for a component that the search moves as a whole. ``tiling`` and ``slicing`` are of VAEs;
    one that ``may_tile`` decodes in tiles when nothing else is left to give up, though it was not planned to.
    ``storage`` is the dtype that linear weights of blocks are rounded to; bytes and stacks are at it. ``source`` is the
    file that the weights come from in place of the model's own. ``use_order`` are
    the numbers of blocks, counted stack after stack, in the order in which they run, where stacks take turns.
    """

    kind: Kind
    library: Name | None
    class_name: Name
    variant: Name | None
    load_dtype: LoadDtype | None
    load_bytes: Bytes
    trunk_bytes: Bytes
    stacks: list[StackRecord]
    use_order: list[Count] | None = None
    strategy: Strategy
    resident_blocks: Count | None
    resident_policy: PolicyText | None
    prefetch: Positive | None
    slots: Count | None
    hold: bool | None
    linger: bool
    master: Masters | None
    tiling: bool
    slicing: bool = False
    may_tile: bool = False
    storage: Storage | None = None
    source: Annotated[FileSource, FACT] | None = None
    decided_by: Label
    why: str

    @property
    def leaf_level(self) -> bool:
        """Whether layers below its blocks stream, and are what is counted."""
        return any(stack.leaves for stack in self.stacks)

    @model_validator(mode="after")
    def _layerwise_parameters_together(self) -> ComponentPlan:
        parameters = (
            self.resident_blocks,
            self.resident_policy,
            self.prefetch,
            self.slots,
            self.hold,
        )
        layerwise = self.strategy == "layerwise-offload"
        if (self.master is None and layerwise) or (self.master is not None and self.strategy in ("resident", "fsdp")):
            raise ValueError(f"master must be {'set' if layerwise else 'null'} for {self.strategy}")
        if any((parameter is not None) != layerwise for parameter in parameters):
            raise ValueError(f"layerwise parameters must be {'set' if layerwise else 'null'} for {self.strategy}")
        blocks = sum(stack.count for stack in self.stacks)
        if self.resident_blocks is not None and self.resident_blocks > blocks:
            raise ValueError(f"resident_blocks {self.resident_blocks} is more than the {blocks} blocks there are")
        order = self.use_order or []
        if len(set(order)) < len(order) or max(order, default=-1) >= blocks:
            raise ValueError(f"use_order must number blocks below {blocks}, each once")
        if self.resident_policy is not None and self.resident_blocks is not None:
            check_policy(self.resident_policy, self.resident_blocks, [stack.count for stack in self.stacks])
        return self


class WorkerPlan(Strict):
    """What a worker's plan has of its own; the rest is the document's."""

    machine: MachineRecord
    budget: Budget
    certainty: Certainty | None
    loras: list[PlannedLora] = Field(default_factory=list)
    load_order: list[Name]
    policy: Policy
    role: Annotated[RolePart, FACT]
    components: dict[ComponentName, ComponentPlan]

    @model_validator(mode="after")
    def _parts_are_of_components(self) -> WorkerPlan:
        _check_parts(self)
        return self


class PlanDocument(Strict):
    """One placement plan. ``predicted`` and ``measured`` are null until a cost model or a trial fills them.

    ``attention`` is the denoiser's backend in diffusers' words, None for its default; ``cache`` its cache over
    steps, None for none. ``also`` says which of the named alternatives (the rule plan, all resident) the plan itself
    is. ``loras`` are in the order in which they are put in. ``certainty`` is None for a plan that doesn't fit,
    and for one of 0.1. A plan for a fleet has a ``layout``, and is by itself the plan of the first of its ``workers``
    that denoises; ``worker_plans`` are those of the others, and ``layouts`` those that were compared.
    """

    schema_version: int = Field(alias="schema", ge=SCHEMA_VERSION, le=SCHEMA_VERSION)  # Literal[1] would take true
    versions: dict[Name, str]
    model: ModelRecord
    workload: Annotated[Workload, FACT]  # the largest generation that the plan is for
    machine: MachineRecord
    budget: Budget
    fits: bool
    certainty: Certainty | None = None
    changed_by_default: list[ChangedByDefault] = Field(default_factory=list)
    attention: Name | None = None
    cache: Annotated[StepCache, FACT] | None = None
    loras: list[PlannedLora] = Field(default_factory=list)
    load_order: list[Name]
    policy: Policy
    role: Annotated[RolePart, FACT]
    components: dict[ComponentName, ComponentPlan]
    trace: TraceRecord | None = None
    predicted: Predicted | None
    compared: PlanComparison | None = None
    arithmetic: Arithmetic | None = None
    alternatives: list[Alternative] = Field(default_factory=list)
    also: list[Name] = Field(default_factory=list)
    measured: Measured | None
    warnings: list[str]
    layout: LayoutName | None = None
    workers: list[WorkerRecord] = Field(default_factory=list)
    fleet: FleetRecord | None = None
    layouts: list[LayoutRecord] = Field(default_factory=list)
    worker_plans: dict[Name, WorkerPlan] = Field(default_factory=dict)

    _from_earlier = model_validator(mode="before")(staticmethod(earlier.plan_facts))

    @property
    def is_for_several(self) -> bool:
        """Whether several workers, each with a plan of its own, run it; ranks that shard it have one plan."""
        return len(self.workers) > 1 and self.layout != "fsdp"

    @property
    def given_files(self) -> dict[str, Path]:
        """The files of components whose weights are not the model's own."""
        sources = {name: each.source for name, each in self.components.items()}
        return {name: Path(each.path) for name, each in sources.items() if each is not None and not each.own}

    @property
    def kept_as_stored(self) -> dict[str, str]:
        """The model's own files whose weights are kept as they store them, by component, relative to the model."""
        sources = {name: each.source for name, each in self.components.items()}
        return {name: each.path for name, each in sources.items() if each is not None and each.own}

    @property
    def load_dtypes(self) -> dict[str, str | None]:
        """The dtype that each component loads at."""
        return {name: each.load_dtype for name, each in self.components.items()}

    @model_validator(mode="after")
    def _parts_are_of_components(self) -> PlanDocument:
        _check_parts(self)
        for stage in self.predicted.stages if self.predicted else ():
            if stage.component not in self.components:
                raise ValueError(f"predicted has a stage of {stage.component}, which is no component of the plan")
        return self

    @model_validator(mode="after")
    def _fleets_are_whole(self) -> PlanDocument:
        if len({self.layout is not None, bool(self.workers), self.fleet is not None}) > 1:
            raise ValueError("layout, workers and fleet must be set together")
        unknown = {each.plan for each in self.workers if each.plan is not None} ^ self.worker_plans.keys()
        if unknown:
            raise ValueError(f"workers and worker_plans differ in {', '.join(sorted(unknown))}")
        for what in ({each.name for each in self.workers}, {(each.host, each.device) for each in self.workers}):
            if len(what) < len(self.workers):
                raise ValueError("two workers have the same name, or the same device of a host")
        return self

    @model_validator(mode="after")
    def _fits_agrees_with_budget(self) -> PlanDocument:
        for budget in (self.budget, *(each.budget for each in self.worker_plans.values())):
            deficit_bytes = budget.deficit_bytes
            # A plan by the rules may fit with a host deficit, which it warns of; a searched one doesn't.
            if deficit_bytes > 0 if self.fits else not (deficit_bytes or budget.host_deficit_bytes):
                raise ValueError(f"fits is {self.fits}, but the budget's deficit is {deficit_bytes} bytes")
        return self


def _check_parts(plan: WorkerPlan | PlanDocument) -> None:
    """Raises ValueError where what a plan says of its components leaves one out, or names another."""
    unknown = set(plan.load_order) ^ set(plan.components)
    if unknown:
        raise ValueError(f"load_order and components differ in {', '.join(sorted(unknown))}")
    if len(plan.load_order) > len(plan.components):
        raise ValueError("load_order names a component twice")
    turns = {name for turn in plan.budget.host_turns for name in (turn.component, *turn.masters)}
    for key, names in (("host_turns", turns), ("loras", {each.component for each in plan.loras})):
        others = names - plan.components.keys()
        if others:
            raise ValueError(f"{key} name {', '.join(sorted(others))}, which is no component of the plan")
