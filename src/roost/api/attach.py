"""A pipeline that its user built: planned as it is in memory, held by the plan, and let go again."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roost.api.machine import find_machine, present_gpu
from roost.api.models.attention import check_attention
from roost.api.models.inspect import profile_of
from roost.api.models.step_caches import cache_of, try_live_cache
from roost.api.models.versions import RECORDED, installed_versions
from roost.api.plans.plan import plan_traced
from roost.api.plans.preflight import keeping_masters
from roost.api.requests.declared import declared_options
from roost.api.requests.option_sets import FileOptions, PlanOptions
from roost.api.requests.options import aim_of, choices_of, live_workload_of, searches
from roost.api.requests.python_options import options_of
from roost.api.runs.pipeline import tie
from roost.api.runs.ready import meet_gpu
from roost.errors import NothingFits, UsageError
from roost.facts.decider import Decider, spelled
from roost.facts.machine import DeviceKind, Machine
from roost.facts.model import Inventory
from roost.facts.request import Choices, SetChoice
from roost.plan import PlanDocument, read_plan
from roost.plan.revision import revised
from roost.planner.by_rules import Question, plan_by_rules
from roost.planner.leaf_level import at_typed_level
from roost.planner.rules.roles import parse_role
from roost.planner.rules.typed import resolve
from roost.planner.ruling import ruling_on
from roost.probes.dry_run import DryRunOptions, dry_run_live
from roost.probes.machine.host import read_host, with_weights_here
from roost.profiles.models import recognise
from roost.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from roost.residency.hold.attach import Held
    from roost.residency.weights.obstacles import Obstacle


# What is in memory already, or where it runs, is not asked.
_FOUND = spelled(Decider("live module"))  # decides what the nature of a module in memory leaves no choice of
_NOT_ASKED = ("gpu", "dtype", "variant", "role", "fsdp", "lora", "fuse", *declared_options(FileOptions))


def attach(
    pipeline: Any,
    plan: str | Path | PlanDocument = "auto",
    *,
    vram: str | int | None = None,
    ram: str | int | None = None,
    **options: object,
) -> Held:
    """Puts a plan in force on a pipeline in memory; ``close`` what it returns, or use it in a ``with``, to take it off.

    ``plan`` is a document, a YAML file's path or ``auto``, which plans the pipeline as ``roost plan`` would, by a dry
    run and the search. Then ``options`` are fields of ``PlanOptions``, such as the ``size``, ``frames`` and ``steps``
    of what you will generate; without them the family's usual workload counts. Sizes of memory are texts like
    ``24GiB`` or bytes. Without CUDA, ``vram`` is the budget of the emulated device. Raises UsageError, PlanMismatch,
    NothingFits and OutOfMemory; the pipeline is then as it was.
    """
    planned_here = plan == "auto"
    if planned_here:
        plan = plan_pipeline(pipeline, vram, ram, **options)
    elif options:
        raise UsageError(f"{next(iter(options))} can't change a plan that is made already; attach with plan='auto'.")
    if not isinstance(plan, PlanDocument | str | Path):
        raise UsageError(f"attach: plan is 'auto', a plan or its file's path, not a {type(plan).__name__}.")
    document = plan if isinstance(plan, PlanDocument) else read_plan(Path(plan))
    if _device_kind(vram, document) == "emulated" and (planned_here or document.machine.gpu.device_kind != "emulated"):
        warnings.warn(
            "no CUDA device here: the pipeline is held on the emulated device, which is the CPU with"
            f" {format_bytes(document.budget.budget_bytes)} to use.",
            stacklevel=2,
        )
    return _hold(pipeline, document, vram)


def detach(pipeline: Any) -> None:
    """Takes off what ``attach`` or ``load_pipeline`` put on ``pipeline``; its weights are then in host memory."""
    held = vars(pipeline).get("roost")
    if held is None:
        raise UsageError(f"no plan holds this {type(pipeline).__name__}; attach one first with roost.attach(pipeline).")
    held.close()


def plan_pipeline(
    pipeline: Any, vram: str | int | None = None, ram: str | int | None = None, **options: object
) -> PlanDocument:
    """The search's plan of a pipeline in memory; ``options`` as in ``attach``.

    What can't be moved block by block gets the next best strategy. A pipeline that can't be dry-run is planned by its
    weights, and the plan says so. Raises NothingFits, with the verdict, when there is no plan that fits.
    """
    from roost.residency.hold.live_inventory import host_bytes, read_live_inventory  # imported here: they bring torch
    from roost.residency.hold.live_modules import held_modules
    from roost.residency.weights.foreign import check_free
    from roost.residency.weights.obstacles import find_obstacles

    wanted = _options(vram, ram, options)
    inventory = read_live_inventory(pipeline, recognise)
    check_free(pipeline, held_modules(pipeline))  # before the dry run, which would be of whatever wraps them
    obstacles = find_obstacles(held_modules(pipeline))
    gpu = "emulated" if _device_kind(vram) == "emulated" else None
    machine = find_machine(gpu, vram, ram, wanted.headroom, wanted.pinned_max)
    host = with_weights_here(machine.host, machine.gpu.device_kind, host_bytes(pipeline))
    machine = replace(machine, host=host)
    plan = _plan(pipeline, inventory, machine, obstacles, wanted)
    if not plan.fits:
        work = plan.workload
        size = f"{work.width}x{work.height}" + (f" × {work.frames} frames" if work.frames else "")
        raise NothingFits(
            f"this {inventory.pipeline} does not fit at {size}: {plan.budget.verdict} For a smaller workload, say so "
            "with attach(size=…, frames=…)."
        )
    return plan


def _options(vram: str | int | None, ram: str | int | None, options: Mapping[str, object]) -> PlanOptions:
    found = options_of(PlanOptions, {"vram": vram, "ram": ram, **options}, "attach", _NOT_ASKED)
    if "fp8" in aim_of(found).allow:
        raise UsageError(
            "attach can't store weights in 8 bits, since it gives them back as they were; leave fp8 out of allow, or"
            " load the pipeline by a plan."
        )
    return found


def _plan(
    pipeline: Any, inventory: Inventory, machine: Machine, obstacles: dict[str, Obstacle], options: PlanOptions
) -> PlanDocument:
    profile = profile_of(inventory)
    check_attention(options.attention, inventory.components)
    cache = cache_of(options.cache)
    try_live_cache(cache, pipeline, inventory)
    question = at_typed_level(
        Question(
            inventory=inventory,
            profile=profile,
            machine=machine,
            workload=live_workload_of(options, profile, inventory.pipeline),
            choices=_with_found(choices_of(options), inventory, obstacles),
            role=parse_role(options.role),
            attention=options.attention,
            cache=cache,
            versions=installed_versions(RECORDED),
        )
    )
    dry_run_options = DryRunOptions(guidance_argument=profile.guidance_argument)
    if searches(options):
        ruling_on(question)  # refuses wrong options before the slow dry run
        plan = plan_traced(
            question, options, lambda asked: dry_run_live(pipeline, asked.inventory, asked.workload, dry_run_options)
        )
    else:
        plan = plan_by_rules(question)
    components = dict(plan.components)
    for name, obstacle in obstacles.items():
        components[name] = revised(components[name], decided_by=_FOUND, why=obstacle.why)
    return revised(plan, components=components)


def _with_found(choices: Choices, inventory: Inventory, obstacles: Mapping[str, Obstacle]) -> Choices:
    """What was typed, and what the live modules leave no choice of; UsageError where the two disagree."""
    typed = resolve(Choices(sets=choices.sets), inventory.components).components
    for name, obstacle in obstacles.items():
        wish = typed.get(name)
        if wish is not None and wish.strategy != obstacle.strategy:
            raise UsageError(
                f"{wish.typed} can't be had for the live {name!r}, which must be {obstacle.strategy}. {obstacle.why} "
                f"Leave that option out, or {obstacle.remedy}."
            )
    found = (
        SetChoice(option=_FOUND, text="", selector=name, strategy=obstacle.strategy, found=True)
        for name, obstacle in obstacles.items()
        if name not in typed
    )
    return replace(choices, sets=(*choices.sets, *found))


def _hold(pipeline: Any, plan: PlanDocument, vram: str | int | None) -> Held:
    from roost.residency.device.choice import open_device
    from roost.residency.hold.attach import hold  # imported here: these bring torch

    kind = _device_kind(vram, plan)
    plan = _with_all_masters(plan, pipeline, kind)
    budget_bytes = plan.budget.budget_bytes
    changes: list[str] = []
    if kind == "cuda":
        plan, budget_bytes, changes = meet_gpu(plan, force=False)
    elif plan.machine.gpu.device_kind == "cuda":
        changes.append(f"device: emulated on the CPU instead of {plan.machine.gpu.name}")
    if vram is not None:
        budget_bytes = min(budget_bytes, max(0, parse_bytes(str(vram), "vram") - plan.budget.headroom_bytes))
    device = open_device(kind, budget_bytes, plan.budget.headroom_bytes)
    try:
        held = hold(pipeline, plan, device)
    except BaseException:
        device.close()
        raise
    held.changes.extend(changes)
    held.then(device.close)
    tie(held)
    return held


def _with_all_masters(plan: PlanDocument, pipeline: Any, kind: DeviceKind) -> PlanDocument:
    """The plan without anything given back, for which host memory must be there (NothingFits)."""
    from roost.residency.hold.live_inventory import host_bytes  # imported here: it brings torch

    if not plan.budget.host_turns:
        return plan
    needed = plan.budget.all_masters_bytes
    host = with_weights_here(read_host(device_kind=kind), kind, host_bytes(pipeline))
    if needed > host.available_bytes:
        raise NothingFits(
            f"this plan gives host memory back within a run, which attach can't: {format_bytes(needed)} are needed and"
            f" {format_bytes(host.available_bytes)} available ({host.source}); plan with generations=2, which keeps it."
        )
    return keeping_masters(plan)


def _device_kind(vram: str | int | None, plan: PlanDocument | None = None) -> DeviceKind:
    """CUDA where it is, unless the plan says otherwise; else the emulated device, when its memory is known."""
    if plan is not None and plan.machine.gpu.device_kind == "emulated":
        return "emulated"
    from roost.residency.device.choice import has_cuda  # imported here: it brings torch

    if has_cuda():
        return "cuda"
    if vram is None:
        present_gpu()  # says why there is none
        raise UsageError("PyTorch finds no CUDA device; to try this on the CPU, give its memory, like vram='12GiB'.")
    return "emulated"
