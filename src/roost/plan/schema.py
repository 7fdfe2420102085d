"""The plan document's schema: strict, every key always present, bytes as integers, seconds as floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from roost.facts.decider import Blocked, Fired
from roost.facts.limits import Bytes, Label, Name, Positive, Sha256
from roost.facts.machine import GpuFacts, HostFacts
from roost.facts.model import Kind, ModelSource, RolePart, StoredFile, Task
from roost.facts.request import Mode, Storage, Strategy, Workload
from roost.facts.resident_policy import check_policy
from roost.plan import earlier
from roost.plan.fields import (
    FACT,
    ComponentName,
    Count,
    LoadDtype,
    Masters,
    PolicyText,
    RelativePath,
    Strict,
)
from roost.plan.figures import Alternative, Arithmetic, PlanComparison, Predicted, TraceRecord
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


class StageWeights(Strict):
    """Weights on the device during one stage: by component, and their sum."""

    name: Label
    components: dict[Name, Bytes]
    weights_bytes: Bytes


class HostTurn(Strict):
    """Whose masters are in host memory from the first use of ``component`` on, until the next turn; and their sum."""

    component: Name
    masters: dict[Name, Bytes]
    host_bytes: Bytes


def late_components(turns: Sequence[HostTurn]) -> frozenset[str]:
    """Whose masters are made when their turn comes; until then their weights are in the model's files alone."""
    first = turns[0].masters.keys() if turns else frozenset()
    return frozenset(each for turn in turns for each in turn.masters) - first


class Budget(Strict):
    """The arithmetic of the verdict. Stages are of weights alone.

    ``activations_known`` says whether the verdict counts activations too; None in plans from before it was written.
    ``finding`` is the verdict without what would fit, where it names that; ``lacks`` says in short which memory the
    search lacked. ``would_fit`` are single changes of the asked options, each verified by planning with it; empty in a
    plan that fits. ``host_reserved_bytes`` is what the system and the process take of the host's memory: the host's
    available bytes are what is left. ``host_turns`` are empty where all masters are there all the time; else those of
    a component leave when none of the turns that follow has them, and ``host_bytes`` is the most of any turn.
    """

    total_bytes: Bytes
    free_bytes: Bytes
    headroom_bytes: Bytes
    budget_bytes: Bytes
    stages: list[StageWeights]
    peak_weights_bytes: Bytes
    deficit_bytes: Bytes
    host_bytes: Bytes
    host_deficit_bytes: Bytes
    host_reserved_bytes: Bytes = 0
    host_turns: list[HostTurn] = Field(default_factory=list)
    verdict: str
    finding: str | None = None
    lacks: str | None = None
    would_fit: list[str] = Field(default_factory=list)
    activations_known: bool | None = None

    _from_earlier = model_validator(mode="before")(staticmethod(earlier.budget_facts))

    @property
    def all_masters_bytes(self) -> int:
        """Host memory that all masters take together."""
        together = {name: size for turn in self.host_turns for name, size in turn.masters.items()}
        return sum(together.values()) if together else self.host_bytes

    @property
    def given_back(self) -> frozenset[str]:
        """Whose masters leave host memory before a generation ends."""
        last = self.host_turns[-1].masters.keys() if self.host_turns else frozenset()
        return frozenset(each for turn in self.host_turns for each in turn.masters) - last

    @property
    def late(self) -> frozenset[str]:
        """Whose masters come late."""
        return late_components(self.host_turns)

    @property
    def verdict_alone(self) -> str:
        """The verdict without what would fit."""
        return self.finding or self.verdict


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


class StackRecord(Strict):
    name: Name
    count: Positive
    bytes: Bytes


class ComponentPlan(Strict):
    """Where one component's weights live. The layerwise parameters are null under every other strategy.

    ``master`` is also set for a component that the search moves as a whole. ``tiling`` and ``slicing`` are of VAEs;
    one that ``may_tile`` decodes in tiles when nothing else is left to give up, though it was not planned to.
    ``storage`` is the dtype that linear weights of blocks are rounded to; bytes and stacks are at it. ``use_order`` are
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
    decided_by: Label
    why: str

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


class PlanDocument(Strict):
    """One placement plan. ``predicted`` and ``measured`` are null until a cost model or a trial fills them.

    ``attention`` is the denoiser's backend in diffusers' words, None for its default. ``also`` says which of the named
    alternatives (the rule plan, all resident) the plan itself is. ``loras`` are in the order in which they are put in.
    ``certainty`` is None for a plan that doesn't fit,
    and for one of 0.1.
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

    _from_earlier = model_validator(mode="before")(staticmethod(earlier.plan_facts))

    @model_validator(mode="after")
    def _load_order_names_components(self) -> PlanDocument:
        unknown = set(self.load_order) ^ set(self.components)
        if unknown:
            raise ValueError(f"load_order and components differ in {', '.join(sorted(unknown))}")
        if len(self.load_order) > len(self.components):
            raise ValueError("load_order names a component twice")
        return self

    @model_validator(mode="after")
    def _others_are_of_components(self) -> PlanDocument:
        for stage in self.predicted.stages if self.predicted else ():
            if stage.component not in self.components:
                raise ValueError(f"predicted has a stage of {stage.component}, which is no component of the plan")
        turns = {name for turn in self.budget.host_turns for name in (turn.component, *turn.masters)}
        for key, names in (("host_turns", turns), ("loras", {each.component for each in self.loras})):
            unknown = names - self.components.keys()
            if unknown:
                raise ValueError(f"{key} name {', '.join(sorted(unknown))}, which is no component of the plan")
        return self

    @model_validator(mode="after")
    def _fits_agrees_with_budget(self) -> PlanDocument:
        deficit_bytes = self.budget.deficit_bytes
        # A plan by the rules may fit with a host deficit, which it warns of; a searched one doesn't.
        if deficit_bytes > 0 if self.fits else not (deficit_bytes or self.budget.host_deficit_bytes):
            raise ValueError(f"fits is {self.fits}, but the budget's deficit is {deficit_bytes} bytes")
        return self
