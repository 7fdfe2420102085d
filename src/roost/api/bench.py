"""What a bench is asked: a model or a plan on the GPU that is here, with what the search needs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from roost.api.machine import find_machine
from roost.api.models.inspect import inspect_model, profile_of
from roost.api.plans.plan import load_plan, search_question
from roost.api.plans.preflight import check_runnable
from roost.api.requests.options import PlanOptions, dtype_of
from roost.api.runs.ready import check_plan
from roost.errors import UsageError
from roost.plan import PlanDocument
from roost.planner.by_search import SearchQuestion
from roost.units import parse_bytes

GIVEN_PLAN = "this plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTarget:
    """The question, and the plans that take part beside what is made of it, by name."""

    asked: SearchQuestion
    given: Mapping[str, PlanDocument]
    link_bytes_per_s: float | None


def bench_target(
    target: str, options: PlanOptions, link_speed: str | None = None, plan_model: str | None = None
) -> BenchTarget:
    """What to measure: a model under ``options``, or a plan's model under what the plan was made for.

    A model known by its name is measured with random weights. ``plan_model`` is where a plan's model is now.

    Raises UsageError for what can't be measured here, PlanMismatch for a plan of another model or GPU.
    """
    link_bytes_per_s = parse_link_speed(link_speed)
    given: dict[str, PlanDocument] = {}
    model = target
    if is_plan_file(target):
        ready = check_plan(load_plan(target), model=plan_model)
        given[GIVEN_PLAN] = ready.plan
        model, options = str(ready.model_dir), _options_of(ready.plan, ready.model_dir)
    _check_measurable(model, options, link_speed)
    asked = search_question(model, options, link_bytes_per_s)
    return BenchTarget(asked=asked, given=given, link_bytes_per_s=link_bytes_per_s)


def _check_measurable(model: str, options: PlanOptions, link_speed: str | None) -> None:
    """Refuses before the slow dry run what trials can't be made of."""
    inventory = inspect_model(model, variant=options.variant, dtype=dtype_of(options))
    check_runnable(inventory, profile_of(inventory))
    gpu = find_machine(options.gpu, options.vram, options.ram, options.headroom, options.pinned_max).gpu
    if gpu.named:
        raise UsageError(
            f"--gpu {gpu.profile}: trials run on the GPU that is here; leave --gpu out, or try them on the CPU with"
            " --gpu emulated --vram SIZE."
        )
    if link_speed is not None and gpu.device_kind != "emulated":
        raise UsageError(f"--link-speed {link_speed}: only an emulated GPU has one to choose; leave it out.")


def is_plan_file(target: str) -> bool:
    """Whether the argument names a plan's file rather than a model."""
    return Path(target).suffix.lower() in (".yaml", ".yml") or os.path.isfile(target)


def parse_link_speed(text: str | None) -> float | None:
    """``2GB/s`` or ``2GB`` as bytes per second; UsageError for anything else."""
    if text is None:
        return None
    speed = parse_bytes(text.strip().removesuffix("/s"), "--link-speed")
    if not speed:
        raise UsageError("--link-speed 0 copies nothing; give bytes per second, like 2GB/s.")
    return float(speed)


def _options_of(plan: PlanDocument, model_dir: Path) -> PlanOptions:
    """The options that ask for what ``plan`` was made for."""
    workload, gpu, host = plan.workload, plan.machine.gpu, plan.machine.host
    emulated = gpu.device_kind == "emulated"
    return PlanOptions(
        gpu="emulated" if emulated else None,
        vram=gpu.free_bytes if emulated or gpu.vram_typed else None,
        ram=host.available_bytes if host.ram_typed else None,
        headroom=plan.budget.headroom_bytes,
        size=(workload.width, workload.height),
        frames=workload.frames,
        steps=workload.steps,
        batch=workload.batch,
        guidance=workload.guidance,
        strength=workload.strength,
        variant=plan.model.variant,
        dtype=_typed_dtype(plan, model_dir),
    )


def _typed_dtype(plan: PlanDocument, model_dir: Path) -> str | None:
    """The ``--dtype`` that the plan was made with; None when its components load as they would without."""
    untyped = inspect_model(model_dir, variant=plan.model.variant)
    planned = {name: each.load_dtype for name, each in plan.components.items()}
    if all(each.load_dtype == planned.get(each.name, each.load_dtype) for each in untyped.components):
        return None
    return next((each.load_dtype for each in plan.components.values() if each.kind == "dit"), None)
