"""What a set of placements will take: seconds, bytes and what sets the pace, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from roost.facts.machine import Machine
from roost.facts.model import Component
from roost.facts.request import Tier
from roost.facts.stage import DENOISING, stage_text
from roost.plan.budget import HostTurn, late_components
from roost.plan.figures import BytesInterval, Limiter, Predicted, PredictedStage, SecondsInterval
from roost.plan.shares import Level
from roost.planner.cost.costs import CostModel, launch_bound, use_costs
from roost.planner.cost.host_turns import Turns, host_turns
from roost.planner.cost.movement import block_tiers, late_s, load_s, moved_weights, residents_of, tier_bytes
from roost.planner.cost.rates import LEVELS, Speeds
from roost.planner.cost.simulator import MovedWeights, Schedule, StageTimes, Timeline, UseCost, simulate
from roost.planner.placements import LossyChoices, Placement, lossy_of
from roost.trace import Trace
from roost.units import GiB, MiB

# A stage is bound by compute when waiting adds less than this share to it.
_COMPUTE_BOUND = 1.03
# What a CUDA process holds beside tensors: context, kernels, cuBLAS and cuDNN workspaces. Prior.
_CONTEXT_BYTES: Mapping[Level, int] = {"slow": 900 * MiB, "mid": GiB // 2, "fast": 300 * MiB}


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Everything but the placements: simulate any of them with the same workload, machine and costs.

    With ``weights_only``, bytes are those of weights, which are known also where activations are not. Where the run
    ``gives_back`` masters that it doesn't need again, host memory is a need of each turn.
    """

    components: Mapping[str, Component]
    trace: Trace
    model: CostModel
    machine: Machine
    generations: int = 1
    weights_only: bool = False
    gives_back: bool = False

    @property
    def turns(self) -> Turns | None:
        """The turns of host memory; None where all masters are there all the time.

        That is so where more than one generation needs them, where nobody has seen in which order they are used,
        where host memory is the device's own, and where LoRAs have components loaded together.
        """
        known = self.trace.no_dry_run is None and not self.machine.gpu.unified
        known &= all(each.lora is None for each in self.components.values())
        return Turns.of(self.trace, self.components) if self.gives_back and self.generations == 1 and known else None

    def host_turns(self, placements: tuple[Placement, ...]) -> tuple[HostTurn, ...]:
        """Whose masters are there in which turn; none where all of them are, all the time."""
        turns = self.turns
        return host_turns(placements, turns, self.machine.host.available_bytes) if turns is not None else ()

    @property
    def steps(self) -> int:
        return self.trace.workload.steps_run

    def context_bytes(self, level: Level = "mid") -> int:
        """What the process holds on the device beside tensors; an emulated device has none."""
        return 0 if self.weights_only or self.model.backend == "emulated" else _CONTEXT_BYTES[level]

    def slack_bytes(self, level: Level) -> int:
        """What a process may take beyond the budget and the likely context: the headroom is for that.

        Of it, what the run's allocator may reserve at most.
        """
        if self.weights_only or self.model.backend == "emulated":
            return 0
        context_bytes, machine = self.context_bytes(), self.machine
        free_bytes = machine.headroom_bytes - (self.context_bytes(level) - context_bytes)
        return min(free_bytes, machine.limit_bytes - machine.budget_bytes + context_bytes)

    def costs(self, level: Level = "mid", lossy: LossyChoices = frozenset()) -> tuple[UseCost, ...]:
        costs = use_costs(self.trace, self.components, self.model, level, lossy)
        if not self.weights_only:
            return costs
        return tuple(replace(each, activation_bytes=0, unusable_bytes=0) for each in costs)

    def timeline(self, placements: tuple[Placement, ...], level: Level = "mid", *, record: bool = False) -> Timeline:
        """Two generations, so that the second shows what stays."""
        return simulate(self.schedule(placements, level), generations=2, record=record)

    def schedule(
        self, placements: tuple[Placement, ...], level: Level = "mid", costs: tuple[UseCost, ...] | None = None
    ) -> Schedule:
        """The simulation's input; ``costs`` saves working them out again."""
        speeds, late = self.model.rates.at(level), late_components(self.host_turns(placements))
        return Schedule(
            weights={each.component.name: self._moved(each, speeds, late) for each in placements},
            uses=self.costs(level, lossy_of(placements)) if costs is None else costs,
            sequence=self.trace.sequence,
            budget_bytes=self.machine.budget_bytes,
            context_bytes=self.context_bytes(level),
        )

    def load_s(self, placements: tuple[Placement, ...], level: Level = "mid") -> float:
        """Seconds before the first generation; masters that come late are read in it."""
        speeds = self.model.rates.at(level)
        return sum(load_s(each, speeds) for each in placements) - sum(self.late_s(placements, level).values())

    def late_s(self, placements: tuple[Placement, ...], level: Level = "mid") -> dict[str, float]:
        """Seconds in which masters that come late are read, by component."""
        speeds, late = self.model.rates.at(level), late_components(self.host_turns(placements))
        return {each.component.name: late_s(each, speeds) for each in placements if each.component.name in late}

    @staticmethod
    def _moved(placement: Placement, speeds: Speeds, late: frozenset[str]) -> MovedWeights:
        weights = moved_weights(placement, speeds)
        return replace(weights, late_s=late_s(placement, speeds)) if weights.component in late else weights

    def total_s(self, load: float, timeline: Timeline) -> float:
        first, following = timeline.generation_s
        return load + first + (self.generations - 1) * following


def predict(forecast: Forecast, placements: tuple[Placement, ...]) -> Predicted:
    """The prediction: the mid figures, and the same simulation with every rate at either end of its interval."""
    timelines = {level: forecast.timeline(placements, level) for level in LEVELS}
    loads = {level: forecast.load_s(placements, level) for level in LEVELS}
    firsts = {level: timeline.generation_s[0] for level, timeline in timelines.items()}
    mid = timelines["mid"]
    denoising = [key for key in mid.stages[0] if key.phase in DENOISING]
    tiers = {each.component.name: tier_bytes(each) for each in placements}
    steps = {level: sum(timelines[level].stages[0][key].seconds for key in denoising) for level in LEVELS}
    for level in LEVELS:  # reading masters is no part of a step
        read_s = forecast.late_s(placements, level)
        steps[level] -= sum(read_s.get(key.component, 0.0) for key in denoising)
    turns = forecast.host_turns(placements)
    stages = _stages(forecast, placements, mid)
    peaks = {level: each.peak_bytes for level, each in timelines.items()}
    process = {level: each.reserved_bytes for level, each in timelines.items()}
    reserved = {level: size - forecast.context_bytes(level) for level, size in process.items()}
    paces = [stage for key, stage in zip(mid.stages[0], stages, strict=True) if key in denoising] or stages
    return Predicted(
        load_s=_interval(loads),
        first_s=_interval(firsts),
        next_s=_interval({level: each.generation_s[1] for level, each in timelines.items()}),
        step_s=_interval({level: seconds / max(1, forecast.steps) for level, seconds in steps.items()}),
        total_s=_interval({level: forecast.total_s(loads[level], each) for level, each in timelines.items()}),
        first_total_s=_interval({level: loads[level] + firsts[level] for level in LEVELS}),
        peak_bytes=_bytes_interval(peaks),
        reserved_bytes=_bytes_interval(reserved),
        process_bytes=_bytes_interval(process),
        kept_bytes=_kept_bytes(forecast, placements, max(reserved.values())),
        limiter=max(paces, key=lambda stage: stage.seconds).binding if paces else "compute",
        host_bytes=max((turn.host_bytes for turn in turns), default=sum(_in_memory(each) for each in tiers.values())),
        pinned_bytes=max(
            (sum(tiers[name]["pinned"] for name in turn.masters) for turn in turns),
            default=sum(each["pinned"] for each in tiers.values()),
        ),
        stages=stages,
        source=forecast.trace.source,
        guessed=forecast.trace.no_dry_run is not None,
        notes=[],
    )


def _kept_bytes(forecast: Forecast, placements: tuple[Placement, ...], reserved_bytes: int) -> int:
    """What the allocator may keep beside that, where the run lets it: at its limit it gives that back.

    Nobody has looked at what it keeps of tiles and slices, which are for devices without room.
    """
    if forecast.model.backend == "emulated" or any(each.tiling or each.slicing for each in placements):
        return 0
    return max(0, min(forecast.trace.kept_bytes, forecast.machine.limit_bytes - reserved_bytes))


def _in_memory(tiers: Mapping[Tier, int]) -> int:
    return tiers["pinned"] + tiers["pageable"]


def taken_of(forecast: Forecast, predicted: Predicted) -> tuple[BytesInterval, int]:
    """What "fits" compares: what the process takes with what is free; an emulated device's peak with its budget."""
    if forecast.model.backend == "emulated" or predicted.process_bytes is None:
        return predicted.peak_bytes, forecast.machine.budget_bytes
    return predicted.process_bytes, forecast.machine.gpu.free_bytes


def surely_fits(forecast: Forecast, predicted: Predicted) -> bool:
    """Whether also the upper end of what is taken is there, and may be reserved; never without a dry run."""
    taken, there_bytes = taken_of(forecast, predicted)
    return not predicted.guessed and taken.high <= there_bytes and not beyond_limit_bytes(forecast, predicted)


def beyond_limit_bytes(forecast: Forecast, predicted: Predicted) -> int:
    """What the allocator may need at the upper end beyond what the run lets it reserve."""
    if forecast.model.backend == "emulated" or predicted.reserved_bytes is None:
        return 0
    return max(0, predicted.reserved_bytes.high - forecast.machine.limit_bytes)


def _bytes_interval(by_level: Mapping[Level, int]) -> BytesInterval:
    return BytesInterval(low=min(by_level.values()), mid=by_level["mid"], high=max(by_level.values()))


def _interval(by_level: Mapping[Level, float]) -> SecondsInterval:
    # Eviction can turn an end around by a hair; the ends are those of the three.
    low, high = min(by_level.values()), max(by_level.values())
    return SecondsInterval(low=low, mid=by_level["mid"], high=high)


def _stages(forecast: Forecast, placements: tuple[Placement, ...], timeline: Timeline) -> list[PredictedStage]:
    by_name = {each.component.name: each for each in placements}
    read_s = forecast.late_s(placements)  # in a component's first stage, which sets no pace
    found = []
    for key, stage in timeline.stages[0].items():
        paced_s = stage.seconds - read_s.pop(key.component, 0.0)
        found.append(
            PredictedStage(
                name=stage_text(key.phase, key.component),
                phase=key.phase,
                component=key.component,
                seconds=stage.seconds,
                peak_bytes=stage.peak_bytes,
                binding=_binding(
                    paced_s > _COMPUTE_BOUND * stage.compute_s,
                    _reads_disk(by_name[stage.component], stage),
                    launch_bound(forecast.trace, forecast.components[stage.component], forecast.model),
                ),
            )
        )
    return found


def _reads_disk(placement: Placement, stage: StageTimes) -> bool:
    """Whether what compute waits for comes from the checkpoint: in every pass, or where it waits most, at the start."""
    streams = placement.streaming is not None and not placement.streaming.hold
    kept = residents_of(placement) if streams else frozenset()
    tiers = block_tiers(placement)
    if any(tier == "mapped" for block, tier in enumerate(tiers) if block not in kept):
        return True
    waits_in_passes_s = stage.uses * (stage.steady.seconds - stage.steady.compute_s)
    return "mapped" in tiers and waits_in_passes_s < stage.stall_s / 2


def _binding(waits: bool, mapped: bool, launches: bool) -> Limiter:
    if waits:
        return "disk" if mapped else "link"
    return "host" if launches else "compute"
