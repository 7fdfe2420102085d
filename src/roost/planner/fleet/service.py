"""What one card does in one role, taken from its own plan: seconds of each step, VRAM, masters in host memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from roost.facts.machine import GpuFacts
from roost.facts.rates import RateKey
from roost.facts.request import Role
from roost.facts.stage import DENOISING, Phase
from roost.plan.figures import Arithmetic, BytesInterval, Predicted, SecondsInterval
from roost.plan.schema import PlanDocument
from roost.plan.shares import Level
from roost.planner.cost.movement import host_bytes_of
from roost.planner.documents.reader import placements_of
from roost.planner.search_question import SearchQuestion

Step = Literal["encode", "denoise", "decode", "generate"]
# How a card is used: as the worker of a role, alone on its host, or as one of several that shard the denoiser.
Use = Role | Literal["alone", "sharded"]

_STEPS: Mapping[Role, tuple[Step, ...]] = {
    "monolithic": ("generate",),
    "encoder": ("encode",),
    "denoiser": ("denoise",),
    "decoder": ("decode",),
    "encoder-decoder": ("encode", "decode"),
}
# What of a role's plan belongs to a step; a component that it loads beside its own has stages that others do.
_PHASES: Mapping[Step, frozenset[Phase]] = {
    "encode": frozenset({"text_encode", "image_encode"}),
    "denoise": DENOISING | {"image_encode"},
    "decode": frozenset({"decode", "check"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A worker's plan that fits, and what of it counts in a fleet. ``masters`` are host bytes by component."""

    plan: PlanDocument
    predicted: Predicted
    seconds: Mapping[Step, SecondsInterval]
    masters: Mapping[str, int] = field(default_factory=dict)

    @property
    def role(self) -> Role:
        return self.plan.role.name

    @property
    def gpu(self) -> GpuFacts:
        return self.plan.machine.gpu

    @property
    def request_s(self) -> SecondsInterval:
        """Seconds that a request keeps the worker busy."""
        return added(self.seconds.values())

    @property
    def peak_bytes(self) -> BytesInterval:
        """VRAM of the process; of an emulated device, what is allocated."""
        emulated = self.gpu.device_kind == "emulated"
        return self.predicted.peak_bytes if emulated else self.predicted.process_bytes or self.predicted.peak_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unable:
    """A card can't do that, and why."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One card: its number on its host, and its kind. Cards of one kind have one plan for each use."""

    host: str
    device: int
    kind: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A card with what it does."""

    name: str
    seat: Seat
    planned: Planned


Service = Planned | Unable


def per_s(service: Service) -> float:
    """Requests that one such card does in a second; 0 where it can't."""
    return 1 / max(service.request_s.mid, 1e-9) if isinstance(service, Planned) else 0.0


def added(parts: Iterable[SecondsInterval]) -> SecondsInterval:
    """The seconds of parts that follow each other."""
    found = list(parts)
    return _interval(lambda level: sum(at(each, level) for each in found))


def at(interval: SecondsInterval, level: Level) -> float:
    """One end of it: slow rates take the most seconds."""
    return {"slow": interval.high, "mid": interval.mid, "fast": interval.low}[level]


def _interval(seconds_at: Callable[[Level], float]) -> SecondsInterval:
    return SecondsInterval(low=seconds_at("fast"), mid=seconds_at("mid"), high=seconds_at("slow"))


def service_of(asked: SearchQuestion, plan: PlanDocument) -> Service:
    """What the plan's card does, by what the plan predicts of a later generation."""
    predicted = plan.predicted
    if not plan.components:
        return Unable(why=f"the model has nothing for the role {plan.role.name}")
    if not plan.fits or predicted is None:
        lacks = plan.budget.lacks or plan.budget.verdict_alone.removeprefix("does not fit: ")
        return Unable(why=f"{_what(plan)} does not fit {plan.machine.gpu.name}: {lacks}")
    placed = placements_of(plan, asked.question.inventory.components, asked.trace)
    return Planned(
        plan=plan,
        predicted=predicted,
        seconds={
            step: _seconds(plan, predicted, _phases(asked, plan.role.name, step), step)
            for step in _STEPS[plan.role.name]
        },
        masters={each.component.name: host_bytes_of(each) for each in placed},
    )


def _what(plan: PlanDocument) -> str:
    return "the whole pipeline" if plan.role.name == "monolithic" else f"the {plan.role.name}"


def _phases(asked: SearchQuestion, role: Role, step: Step) -> frozenset[Phase]:
    """A decoder that shares its VAE encodes pictures for the others, too."""
    shared = role == "decoder" and not asked.question.profile.role_extras
    return _PHASES.get(step, frozenset()) | ({"image_encode"} if shared else frozenset())


def _seconds(plan: PlanDocument, predicted: Predicted, phases: frozenset[Phase], step: Step) -> SecondsInterval:
    """The step's share of a later generation, as the first one's stages share it."""
    if step == "generate":
        shards = any(each.strategy == "fsdp" for each in plan.components.values())
        return _gathering(plan, predicted.next_s) if shards else predicted.next_s
    mine_s = sum(stage.seconds for stage in predicted.stages if stage.phase in phases)
    all_s = sum(stage.seconds for stage in predicted.stages)
    share = mine_s / all_s if all_s else 0.0
    return _interval(lambda level: share * at(predicted.next_s, level))


def _gathering(plan: PlanDocument, next_s: SecondsInterval) -> SecondsInterval:
    """With the seconds in which compute waits for other cards' shards: in each pass the rest of the denoiser comes."""
    if plan.arithmetic is None:
        return next_s
    arithmetic = plan.arithmetic
    return _interval(lambda level: at(next_s, level) + _waited_s(plan, arithmetic, level))


def _waited_s(plan: PlanDocument, arithmetic: Arithmetic, level: Level) -> float:
    others = 1 - 1 / plan.policy.num_gpus
    link_bytes_per_s = arithmetic.rates[RateKey.PINNED_H2D].at(level)
    waited_s = 0.0
    for stage in arithmetic.stages:
        component = plan.components[stage.component]
        if component.strategy == "fsdp":
            gathered_s = stage.passes * others * component.load_bytes / link_bytes_per_s
            waited_s += max(0.0, gathered_s - stage.compute_s)
    return waited_s
