"""The plan document's schema, version 1: strict, every key always present, bytes as integers, seconds as floats."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from roost.facts import DeviceKind, Kind, Mode, Platform, Strategy, Task

Bytes = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RelativePath = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f][^\\\x00-\x1f]*$", max_length=1024)]
LoadDtype = Annotated[str, Field(pattern="^(bfloat16|float16|float32)$")]
Name = Annotated[str, Field(min_length=1, max_length=256)]
ComponentName = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]*$", max_length=256)]
Label = Annotated[str, Field(min_length=1)]  # made of names, as many as a model or a command line has


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class FileRecord(_Strict):
    bytes: Bytes
    sha256: Sha256


class ModelRecord(_Strict):
    """Which model the plan is for."""

    path: str | None
    fingerprint: Sha256
    pipeline: Name
    family: Name | None
    task: Task
    variant: Name | None
    files: dict[RelativePath, FileRecord]


class WorkloadRecord(_Strict):
    """The largest generation the plan is for. ``frames`` is null for images."""

    width: Positive
    height: Positive
    frames: Positive | None
    steps: Positive
    batch: Positive
    guidance: Annotated[float, Field(allow_inf_nan=False)] | None


class GpuRecord(_Strict):
    device_kind: DeviceKind
    platform: Platform
    name: Name
    total_bytes: Bytes
    free_bytes: Bytes
    source: Name
    profile: Name | None
    uuid: Name | None
    driver: Name | None
    compute_capability: Name | None
    pcie_generation: Positive | None
    pcie_width: Positive | None


class HostRecord(_Strict):
    available_bytes: Bytes
    pinnable_bytes: Bytes
    source: Name


class MachineRecord(_Strict):
    gpu: GpuRecord
    host: HostRecord


class StageWeights(_Strict):
    """Weights on the device during one stage: by component, and their sum."""

    name: Label
    components: dict[Name, Bytes]
    weights_bytes: Bytes


class Budget(_Strict):
    """The arithmetic of the verdict, on weights alone: activations are not in it."""

    total_bytes: Bytes
    free_bytes: Bytes
    headroom_bytes: Bytes
    budget_bytes: Bytes
    stages: list[StageWeights]
    peak_weights_bytes: Bytes
    deficit_bytes: Bytes
    host_bytes: Bytes
    host_deficit_bytes: Bytes
    verdict: str


class Fired(_Strict):
    id: Name
    why: str


class Blocked(_Strict):
    id: Name
    by: Label


class Policy(_Strict):
    name: Literal["rules"]
    mode: Mode
    num_gpus: Positive
    choices: list[str]
    layerwise_groups: list[Name]
    fired: list[Fired]
    blocked: list[Blocked]


class StackRecord(_Strict):
    name: Name
    count: Positive
    bytes: Bytes


class Masters(_Strict):
    """How many of the component's blocks keep their host copy in each tier."""

    pinned: Count
    pageable: Count
    mapped: Count


class ComponentPlan(_Strict):
    """Where one component's weights live. The layerwise parameters are null under every other strategy."""

    kind: Kind
    library: Name | None
    class_name: Name
    variant: Name | None
    load_dtype: LoadDtype | None
    load_bytes: Bytes
    trunk_bytes: Bytes
    stacks: list[StackRecord]
    strategy: Strategy
    resident_blocks: Count | None
    resident_policy: Literal["strided", "leading"] | None
    prefetch: Positive | None
    slots: Count | None
    hold: bool | None
    linger: bool
    master: Masters | None
    tiling: bool
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
            self.master,
        )
        layerwise = self.strategy == "layerwise-offload"
        if any((parameter is not None) != layerwise for parameter in parameters):
            raise ValueError(f"layerwise parameters must be {'set' if layerwise else 'null'} for {self.strategy}")
        blocks = sum(stack.count for stack in self.stacks)
        if self.resident_blocks is not None and self.resident_blocks > blocks:
            raise ValueError(f"resident_blocks {self.resident_blocks} is more than the {blocks} blocks there are")
        return self


class RolePlan(_Strict):
    """What a deployment role would load of the model."""

    name: Literal["monolithic", "encoder", "denoiser", "decoder"]
    stages: list[Name]
    loads: list[Name]
    keeps: list[Name]
    skips: list[Name]
    load_bytes: Bytes
    warnings: list[str]


class PlanDocument(_Strict):
    """One placement plan. ``predicted`` and ``measured`` are null until a cost model or a trial fills them."""

    schema_version: int = Field(alias="schema", ge=1, le=1)  # Literal[1] would take true
    versions: dict[Name, str]
    model: ModelRecord
    workload: WorkloadRecord
    machine: MachineRecord
    budget: Budget
    fits: bool
    load_order: list[Name]
    policy: Policy
    role: RolePlan
    components: dict[ComponentName, ComponentPlan]
    predicted: None
    measured: None
    warnings: list[str]

    @model_validator(mode="after")
    def _load_order_names_components(self) -> PlanDocument:
        unknown = set(self.load_order) ^ set(self.components)
        if unknown:
            raise ValueError(f"load_order and components differ in {', '.join(sorted(unknown))}")
        if len(self.load_order) > len(self.components):
            raise ValueError("load_order names a component twice")
        return self

    @model_validator(mode="after")
    def _fits_agrees_with_budget(self) -> PlanDocument:
        if self.fits is (self.budget.deficit_bytes > 0):
            raise ValueError(f"fits is {self.fits}, but the budget's deficit is {self.budget.deficit_bytes} bytes")
        return self
