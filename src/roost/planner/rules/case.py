"""What a rule is, what it may look at (``Case``), what has been decided so far (``Board``), and the question asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from roost.facts.decider import Decider
from roost.facts.loras import Adapters
from roost.facts.machine import Machine
from roost.facts.model import Component, Inventory, ModelProfile
from roost.facts.request import GROUPS, Choices, Group, Role, Strategy, Workload
from roost.facts.step_cache import StepCache
from roost.plan.loras import PlannedLora
from roost.planner.rules.names import base_name, group_of, members
from roost.planner.rules.typed import Explicit
from roost.units import GiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The facts of one planning question. All are given; nothing is looked up."""

    components: tuple[Component, ...]
    profile: ModelProfile
    machine: Machine
    batch: int
    choices: Choices
    explicit: Explicit

    @property
    def on_cuda(self) -> bool:
        return (self.choices.platform or self.machine.gpu.platform) == "cuda"

    @property
    def automatic(self) -> bool:
        """Whether rules may move components: a CUDA target in mode auto or memory."""
        return self.on_cuda and self.choices.mode in ("auto", "memory")

    @property
    def free_gib(self) -> float:
        return self.machine.gpu.free_bytes / GiB

    @property
    def total_gib(self) -> float:
        return self.machine.gpu.total_bytes / GiB

    @property
    def weights_bytes(self) -> int:
        return sum(each.load_bytes for each in self.components)

    @property
    def members(self) -> Mapping[Group, tuple[Component, ...]]:
        return members(self.components)

    @property
    def fsdp_option(self) -> str | None:
        """What turned FSDP on: the typed option, or mode ``speed`` with several GPUs and a family that allows it."""
        if self.choices.fsdp is not None:
            return "--fsdp" if self.choices.fsdp else None
        by_mode = self.choices.mode == "speed" and self.choices.num_gpus >= 2 and self.profile.fsdp
        return "--mode speed" if by_mode and self.on_cuda else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One strategy, who decided it and why."""

    strategy: Strategy
    decided_by: Decider
    why: str
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Board:
    """Decisions so far. A decided group or component is never decided again."""

    case: Case
    groups: dict[Group, Decision] = field(default_factory=dict)
    components: dict[str, Decision] = field(default_factory=dict)
    fired: set[str] = field(default_factory=set)

    def decide_groups(self, groups: Iterable[Group], decision: Decision, only: frozenset[str] | None = None) -> bool:
        """Decides groups that are open, and their open members (of ``only`` these base names, when given)."""
        changed = False
        for group in groups:
            if group in self.groups:
                continue
            self.groups[group] = decision
            changed = True
            for component in self.case.members[group]:
                if only is None or base_name(component.name) in only:
                    self.decide(component, decision)
        return changed

    def decide(self, component: Component, decision: Decision) -> bool:
        if component.name in self.components:
            return False
        self.components[component.name] = decision
        return True

    def open_components(self) -> list[Component]:
        return [each for each in self.case.components if each.name not in self.components]

    def owners(self, groups: Iterable[Group]) -> tuple[str, ...]:
        """Who decided these groups, as typed or by rule id."""
        return tuple(dict.fromkeys(self.groups[group].decided_by.detail for group in groups))

    def layerwise_groups(self) -> tuple[Group, ...]:
        """Groups that stream: decided so as a whole, or by a member; a group needs no member in the model."""
        streamed = {
            group_of(each)
            for each in self.case.components
            if self.components[each.name].strategy == "layerwise-offload"
        }
        streamed |= {group for group, decision in self.groups.items() if decision.strategy == "layerwise-offload"}
        return tuple(group for group in GROUPS if group in streamed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row: when it applies, what keeps it from firing, what it does, and why.

    ``groups`` are those it is about: when all of them are decided already, their owners blocked it. ``effect`` returns
    whether it decided anything. ``why_several`` is the reason where it is said once of several components.
    """

    id: str
    condition: str
    applies: Callable[[Case, Board], bool]
    blockers: Callable[[Case], tuple[str, ...]] = lambda case: ()
    groups: Callable[[Case], tuple[Group, ...]] = lambda case: ()
    result: str
    effect: Callable[[Board, Rule], bool]
    why: str
    why_several: str | None = None
    source: str

    def decision(self, strategy: Strategy) -> Decision:
        return Decision(strategy=strategy, decided_by=Decider("rule", self.id), why=self.why)


# One planning question: all the facts that a plan depends on.


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Everything a plan depends on."""

    inventory: Inventory
    profile: ModelProfile
    machine: Machine
    workload: Workload
    choices: Choices
    role: Role
    attention: str | None = None  # the denoiser's backend; changes no placement
    cache: StepCache | None = None  # the denoiser's, over its steps
    loras: tuple[PlannedLora, ...] = ()  # their bytes are in the inventory
    adapters: tuple[Adapters, ...] = ()  # of those that are computed beside layers
    versions: Mapping[str, str]
