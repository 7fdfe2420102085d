"""A pipeline that its user built: planned as it is in memory, held by the plan, and let go again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roost.api.inspection import profile_of
from roost.api.machine import find_machine, present_gpu
from roost.api.opening import tie
from roost.api.options import PlanOptions, choices_of, workload_of
from roost.api.ready import meet_gpu
from roost.api.versions import RECORDED, installed_versions
from roost.errors import NothingFits, UsageError
from roost.facts import DeviceKind, Inventory, Machine
from roost.plan import PlanDocument, read_plan
from roost.planner.policy import Question, plan_by_rules
from roost.planner.roles import parse_role
from roost.profiles.models import recognise
from roost.units import parse_bytes

if TYPE_CHECKING:
    from roost.residency.attach import Held
    from roost.residency.obstacles import Obstacle


def attach(
    pipeline: Any, plan: str | Path | PlanDocument = "auto", *, vram: str | None = None, ram: str | None = None
) -> Held:
    """Puts a plan in force on a pipeline in memory; ``close`` what it returns, or use it in a ``with``, to take it off.

    ``plan`` is a document, a YAML file's path or ``auto``, which plans the pipeline as ``roost plan`` would. Sizes are
    texts like ``24GiB``. Without CUDA, ``vram`` is the budget of the emulated device. Raises UsageError, PlanMismatch,
    NothingFits and OutOfMemory; the pipeline is then as it was.
    """
    if not isinstance(plan, PlanDocument):
        plan = plan_pipeline(pipeline, vram, ram) if plan == "auto" else read_plan(Path(plan))
    return _hold(pipeline, plan, vram)


def detach(pipeline: Any) -> None:
    """Takes off what ``attach`` or ``load_pipeline`` put on ``pipeline``; its weights are then in host memory."""
    held = vars(pipeline).get("roost")
    if held is None:
        raise UsageError(f"no plan holds this {type(pipeline).__name__}; attach one first with roost.attach(pipeline).")
    held.close()


def plan_pipeline(pipeline: Any, vram: str | None = None, ram: str | None = None) -> PlanDocument:
    """The rules' plan of a pipeline in memory. What can't be moved block by block gets the next best strategy.

    Raises NothingFits, with the verdict, when the weights don't fit.
    """
    from roost.residency.live_inventory import host_bytes, read_live_inventory  # imported here: they bring torch
    from roost.residency.matching import held_modules
    from roost.residency.obstacles import find_obstacles

    inventory = read_live_inventory(pipeline, recognise)
    obstacles = find_obstacles(held_modules(pipeline))
    machine = find_machine(gpu="emulated" if _device_kind(vram) == "emulated" else None, vram=vram, ram=ram)
    if ram is None:  # what is free now does not count the weights that are there already
        host = replace(machine.host, available_bytes=machine.host.available_bytes + host_bytes(pipeline))
        machine = replace(machine, host=host)
    plan = _plan(inventory, machine, obstacles)
    if not plan.fits:
        raise NothingFits(f"this {inventory.pipeline} does not fit: {plan.budget.verdict}")
    return plan


def _plan(inventory: Inventory, machine: Machine, obstacles: dict[str, Obstacle]) -> PlanDocument:
    profile = profile_of(inventory)
    options = PlanOptions(set=tuple(f"{name}={obstacle.strategy}" for name, obstacle in obstacles.items()))
    question = Question(
        inventory=inventory,
        profile=profile,
        machine=machine,
        workload=workload_of(options, profile),
        choices=choices_of(options),
        role=parse_role(options.role),
        versions=installed_versions(RECORDED),
    )
    plan = plan_by_rules(question)
    components = dict(plan.components)
    for name, obstacle in obstacles.items():
        components[name] = components[name].model_copy(update={"decided_by": "live module", "why": obstacle.why})
    model = plan.model.model_copy(update={"path": None})
    return plan.model_copy(update={"components": components, "model": model})


def _hold(pipeline: Any, plan: PlanDocument, vram: str | None) -> Held:
    from roost.residency.attach import hold  # imported here: these bring torch
    from roost.residency.devices import open_device

    kind = _device_kind(vram, plan)
    budget_bytes = plan.budget.budget_bytes
    changes: list[str] = []
    if kind == "cuda":
        plan, budget_bytes, changes = meet_gpu(plan, force=False)
    elif plan.machine.gpu.device_kind == "cuda":
        changes.append(f"device: emulated on the CPU instead of {plan.machine.gpu.name}")
    if vram is not None:
        budget_bytes = min(budget_bytes, max(0, parse_bytes(vram, "vram") - plan.budget.headroom_bytes))
    device = open_device(kind, budget_bytes)
    try:
        held = hold(pipeline, plan, device)
    except BaseException:
        device.close()
        raise
    held.changes.extend(changes)
    held.then(device.close)
    tie(held)
    return held


def _device_kind(vram: str | None, plan: PlanDocument | None = None) -> DeviceKind:
    """CUDA where it is, unless the plan says otherwise; else the emulated device, when its memory is known."""
    if plan is not None and plan.machine.gpu.device_kind == "emulated":
        return "emulated"
    from roost.residency.devices import has_cuda  # imported here: it brings torch

    if has_cuda():
        return "cuda"
    if vram is None:
        present_gpu()  # says why there is none
        raise UsageError("PyTorch finds no CUDA device; to try this on the CPU, give its memory, like vram='12GiB'.")
    return "emulated"
