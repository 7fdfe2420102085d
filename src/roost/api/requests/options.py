"""Options of a plan as facts; what no option takes is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

from roost.api.requests.known_values import batch_of, one_of
from roost.api.requests.option_sets import PlanOptions, SearchOptions, WorkloadOptions
from roost.api.requests.request import check_steps_run, check_strength
from roost.errors import UsageError
from roost.facts.machine import Platform
from roost.facts.model import ModelProfile
from roost.facts.request import GROUPS, Choices, Mode, Workload
from roost.option_spelling import option
from roost.plan.schema import Certainty
from roost.planner.placements import Lossy
from roost.planner.rules.selectors import parse_selectors, parse_set
from roost.planner.search.columns import Aim, Objective
from roost.profiles.class_facts import load_pipeline_facts
from roost.units import parse_size

POLICIES = ("search", "rules")
OBJECTIVES = ("seconds", "memory")
LOSSY: tuple[Lossy, ...] = ("tiling", "slicing", "fp8")
CERTAINTIES = ("sure", "likely")
MODES = ("auto", "memory", "speed", "manual")
PLATFORMS = ("cuda", "rocm", "cpu")


def choices_of(options: PlanOptions) -> Choices:
    """The placement choices; raises UsageError for a value that no option takes."""
    one_of(options.policy, POLICIES, "policy")
    selection = options.layerwise_offload_components
    offloads = {group: getattr(options, f"{group}_cpu_offload") for group in GROUPS}
    return Choices(
        mode=cast(Mode, one_of(options.mode, MODES, "mode")),
        sets=tuple(parse_set(text) for text in ([options.set] if isinstance(options.set, str) else options.set)),
        layerwise_components=(
            None if selection is None else parse_selectors(selection, "layerwise_offload_components")
        ),
        layerwise_text=(selection or "").strip(),
        dit_layerwise_offload=options.dit_layerwise_offload,
        cpu_offload={group: value for group, value in offloads.items() if value is not None},
        prefetch=_prefetch(options.dit_offload_prefetch_size),
        fsdp=options.fsdp,
        num_gpus=_at_least(1, options.num_gpus, "num_gpus"),
        cache_dit=options.cache_dit,
        cache=options.cache,
        dmd_steps=None if options.dmd_steps is None else _at_least(1, options.dmd_steps, "dmd_steps"),
        platform=None if options.platform is None else cast(Platform, one_of(options.platform, PLATFORMS, "platform")),
    )


def searches(options: SearchOptions) -> bool:
    """Whether the options ask for the search rather than the rules alone."""
    return one_of(options.policy, POLICIES, "policy") == "search"


def aim_of(options: PlanOptions) -> Aim:
    """What the search minimises and may lose; ``--mode memory`` asks for the least peak too."""
    objective = one_of(options.objective, OBJECTIVES, "objective")
    if options.mode == "memory":
        objective = "memory"
    allowed, forbidden = _lossy(options.allow, "allow"), _lossy(options.forbid, "forbid")
    for each in sorted(allowed & forbidden):
        raise UsageError(f"{option('allow', each)} and {option('forbid', each)} disagree; leave one of them out.")
    return Aim(
        objective=cast(Objective, objective),
        max_slowdown=_factor(options.max_slowdown, "max_slowdown"),
        allow=allowed,
        forbid=forbidden,
        certainty=cast(Certainty, one_of(options.certainty, CERTAINTIES, "certainty")),
        max_premium=_factor(options.max_premium, "max_premium"),
    )


def _lossy(listed: str | None, name: str) -> frozenset[Lossy]:
    return frozenset(cast(Lossy, one_of(each, LOSSY, name)) for each in (listed or "").split(",") if each.strip())


def _factor(value: float, name: str) -> float:
    if not math.isfinite(value) or value < 1:
        raise UsageError(f"{option(name, value)} is out of range; give a factor from 1, like 1.2.")
    return value


def generation_count(options: SearchOptions) -> int:
    """How many prompts the seconds are counted for."""
    return _at_least(1, options.generations, "generations")


def workload_of(options: WorkloadOptions, profile: ModelProfile, pipeline: str | None) -> Workload:
    """The family's default workload with what was typed in its place, and the strength of the ``pipeline`` class."""
    workload = _workload(options, profile, pipeline)
    check_steps_run(workload)
    return workload


def live_workload_of(options: WorkloadOptions, profile: ModelProfile, pipeline: str | None) -> Workload:
    """The same for a pipeline in memory, whose caller gives strength and steps later: no default refuses it."""
    workload = _workload(options, profile, pipeline)
    if workload.steps_run < 1 and options.strength is None:
        workload = replace(workload, strength=1.0)  # every step runs
    elif workload.steps_run < 1 and options.steps is None:
        workload = replace(workload, steps=math.floor(1 / (workload.strength or 1.0)) + 1)
    check_steps_run(workload)
    return workload


def _workload(options: WorkloadOptions, profile: ModelProfile, pipeline: str | None) -> Workload:
    default = profile.workload
    width, height = default.width, default.height
    if options.size is not None:
        width, height = parse_size(options.size if isinstance(options.size, str) else "{}x{}".format(*options.size))
    if options.frames is not None and profile.task == "image":
        raise UsageError(f"{option('frames', options.frames)}: this is an image model; leave it out.")
    guidance = default.guidance if options.guidance is None else options.guidance
    if guidance is not None and not math.isfinite(guidance):
        raise UsageError(f"{option('guidance', guidance)} is not a number; give one like 4.0.")
    return Workload(
        width=width,
        height=height,
        frames=default.frames if options.frames is None else _at_least(1, options.frames, "frames"),
        steps=default.steps if options.steps is None else _at_least(1, options.steps, "steps"),
        batch=_at_least(1, batch_of(options.batch), "batch"),
        guidance=guidance,
        strength=_strength(options.strength, pipeline),
    )


def _strength(typed: float | None, pipeline: str | None) -> float | None:
    """What was typed, else the class's own default; None for a class whose steps all run."""
    facts = load_pipeline_facts().get(pipeline or "")
    default = facts.strength if facts is not None else None
    if typed is None:
        return default
    check_strength(typed)
    if default is None:
        raise UsageError(f"{option('strength', typed)}: {pipeline} runs all its steps at any strength; leave it out.")
    return typed


def _prefetch(size: float | None) -> float | None:
    if size is None:
        return None
    if not math.isfinite(size) or size < 0 or (size > 1 and size != int(size)) or size >= 2**31:
        raise UsageError(
            f"{option('dit_offload_prefetch_size', size)}: give a whole number of blocks from 1, or a fraction below 1."
        )
    return size


def _at_least(minimum: int, value: int, name: str) -> int:
    if not minimum <= value < 2**31:
        raise UsageError(f"{option(name, value)} is out of range; give a whole number from {minimum}.")
    return value
