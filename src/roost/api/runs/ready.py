"""A plan checked against this machine, the model's directory and a request, before anything loads."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from roost.api.machine import present_gpu
from roost.api.models.attention import check_attention
from roost.api.models.inspect import inspect_planned, profile_of
from roost.api.models.step_caches import check_cache
from roost.api.plans.preflight import (
    bind_files,
    check_component_names,
    check_executable,
    check_fits,
    check_host_memory,
    check_runnable,
    check_workload,
    gpu_differences,
    keeping_masters,
    model_differences,
    refuse,
    why_masters_stay,
)
from roost.api.plans.ranks import check_ranks
from roost.api.requests.request import RunRequest, calls_of, check_steps_run
from roost.errors import NothingFits, PlanMismatch, UsageError
from roost.facts.machine import DeviceKind, HostFacts
from roost.facts.model import Inventory
from roost.facts.request import Workload
from roost.option_spelling import given, option
from roost.plan import PlanDocument
from roost.plan.revision import revised
from roost.probes.machine.host import read_host
from roost.probes.model.hub import is_path
from roost.shell_quoting import shown_path

if TYPE_CHECKING:
    from roost.residency.sharded.group import RankGroup

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyPlan:
    """A plan that passed its checks: what really runs, where, and how that deviates from the document."""

    plan: PlanDocument
    model_dir: Path
    inventory: Inventory
    device_kind: DeviceKind
    budget_bytes: int
    changes: tuple[str, ...]
    force: bool = False
    group: RankGroup | None = None  # of a run by several processes

    @property
    def writes(self) -> bool:
        """Whether this process writes what the run makes."""
        return self.group is None or self.group.ranks.rank == 0


def workload_of_run(plan: PlanDocument, request: RunRequest) -> Workload:
    """The plan's workload with the request's sizes; raises PlanMismatch when larger than planned.

    A shorter input video makes it smaller still.
    """
    planned = plan.workload
    width, height = request.size or (planned.width, planned.height)
    if request.frames is not None and planned.frames is None:
        raise UsageError(f"{option('frames', request.frames)}: this plan is for pictures; leave it out.")
    asked = {name: getattr(request, name) for name in ("frames", "steps", "batch", "guidance")}
    if request.group is not None:
        asked["batch"] = request.group
    wanted = replace(
        planned, width=width, height=height, **{name: value for name, value in asked.items() if value is not None}
    )
    for name in ("frames", "steps", "batch"):
        value = getattr(wanted, name)
        if value is not None and value < 1:
            raise UsageError(f"{option(name, value)} is out of range; give a whole number from 1.")
    if planned.strength is not None and request.strength is not None:
        wanted = replace(wanted, strength=request.strength)
    check_steps_run(wanted)
    foreseen = replace(wanted, batch=min(wanted.batch, planned.batch)) if request.group_foreseen else wanted
    check_workload(plan, foreseen)
    return wanted


def check_plan(
    plan: PlanDocument,
    *,
    model: str | None = None,
    device: str | None = None,
    force: bool = False,
    request: RunRequest | None = None,
    group: RankGroup | None = None,
) -> ReadyPlan:
    """The plan, ready to load on this machine; nothing is loaded yet.

    Only a ``request`` says what will be called: a run has one, and a trial, which makes a generation for each process
    of such a plan. ``load_pipeline`` has none, as ``attach`` has not: its user may call anything again, so that nothing
    that the plan gives back is, and all masters need to fit together. ``group`` are the processes that run it together.

    Raises PlanMismatch for another model or GPU (unless forced), NothingFits when memory is short, UsageError for a
    plan that this machine can't run. With less free VRAM than planned, fewer blocks stay resident.
    """
    found = replace(_known(plan, model, device, force, group), group=group)
    running, budget_bytes, changes = _meet_machine(found, request)
    return replace(
        found, plan=running, budget_bytes=budget_bytes, changes=_logged((*found.changes, *changes), found.device_kind)
    )


def check_model(
    plan: PlanDocument, *, model: str | None = None, device: str | None = None, force: bool = False
) -> ReadyPlan:
    """The plan with its model, both checked; whether this machine has what it takes is left open. Raises as above."""
    return _known(plan, model, device, force, None)


def check_worker(whole: ReadyPlan, own: PlanDocument) -> ReadyPlan:
    """A worker's ``own`` plan on the machine that is here, of a fleet whose ``whole`` plan meets its model.

    Raises as above. All masters stay, since whatever it has is called again by the next request; whether its host has
    memory for them and for the other workers' is not this worker's question.
    """
    own = keeping_masters(bind_files(own, whole.inventory))
    running, budget_bytes, changes = _meet_device(replace(whole, plan=own, budget_bytes=own.budget.budget_bytes))
    return replace(
        whole, plan=running, budget_bytes=budget_bytes, changes=_logged((*whole.changes, *changes), whole.device_kind)
    )


def foresee_plan(
    plan: PlanDocument,
    *,
    model: str | None = None,
    device: str | None = None,
    force: bool = False,
    request: RunRequest | None = None,
    group: RankGroup | None = None,
) -> ReadyPlan:
    """What ``check_plan`` would give; where only this machine lacks a GPU or free memory, a change says so."""
    found = _known(plan, model, device, force, group)
    try:
        running, budget_bytes, changes = _meet_machine(found, request)
    except (PlanMismatch, NothingFits) as error:
        return replace(found, changes=(*found.changes, f"not on this machine, as it is now: {error}"))
    return replace(found, plan=running, budget_bytes=budget_bytes, changes=(*found.changes, *changes))


def _known(
    plan: PlanDocument, model: str | None, device: str | None, force: bool, group: RankGroup | None
) -> ReadyPlan:
    """The plan with its model, both checked; nothing is asked of the machine."""
    check_executable(plan)
    check_ranks(plan, None if group is None else group.ranks)
    path = _path_of(plan) if model is None else model
    inventory = inspect_planned(plan, path)
    if inventory.path is None:
        raise UsageError(f"{given('model', path)} is only a name, and a run needs the files; give their directory.")
    changes = refuse(plan, model_differences(plan, inventory), what="model", force=force)
    check_component_names(plan, inventory)
    check_runnable(inventory, profile_of(inventory))
    check_attention(plan.attention, plan.components)
    check_cache(plan.cache, plan.model.pipeline, plan.components)
    if not force:
        check_fits(plan)
    return ReadyPlan(
        plan=bind_files(plan, inventory),
        model_dir=Path(inventory.path),
        inventory=inventory,
        device_kind=_device_kind(plan, device),
        budget_bytes=plan.budget.budget_bytes,
        changes=tuple(changes),
        force=force,
    )


def _meet_machine(found: ReadyPlan, request: RunRequest | None) -> tuple[PlanDocument, int, list[str]]:
    """The plan and budget for the machine that is here, with what changed."""
    running, budget_bytes, changes = _meet_device(found)
    why = _why_masters_stay(running, request)
    if why is not None:
        running, kept = with_all_masters(replace(found, plan=running), why)
        changes.append(kept)
    elif not found.force:
        check_host_memory(running, found.inventory, _own_host(found))
    return running, budget_bytes, changes


def _meet_device(found: ReadyPlan) -> tuple[PlanDocument, int, list[str]]:
    if found.device_kind == "cuda":
        return meet_gpu(found.plan, found.force)
    planned = found.plan.machine.gpu
    changes = [] if planned.device_kind == "emulated" else [f"device: emulated on the CPU instead of {planned.name}"]
    return found.plan, found.budget_bytes, changes


def _own_host(ready: ReadyPlan) -> HostFacts:
    """The host, with what of its memory is this process's where several run the plan on it."""
    host = read_host(device_kind=ready.device_kind)
    share = 1 if ready.group is None else ready.group.ranks.local_world
    return replace(host, available_bytes=host.available_bytes // share)


def _why_masters_stay(plan: PlanDocument, request: RunRequest | None) -> str | None:
    if request is None:
        return "any of them may be called again" if plan.budget.host_turns else None
    return why_masters_stay(plan, len(calls_of(request)), loras=bool(request.loras or plan.loras))


def with_all_masters(ready: ReadyPlan, why: str) -> tuple[PlanDocument, str]:
    """The plan with every master in host memory, which must be there (NothingFits), and the change in words."""
    plan = keeping_masters(ready.plan)
    if not ready.force:
        check_host_memory(plan, ready.inventory, _own_host(ready), why)
    return plan, f"host memory: all masters stay, because {why}"


def _logged(changes: tuple[str, ...], kind: DeviceKind) -> tuple[str, ...]:
    _log.info("the plan is checked: it runs on %s", kind)
    for change in changes:
        _log.info("%s", change)
    return changes


def _path_of(plan: PlanDocument) -> str:
    """Where the plan's model is; UsageError when the plan doesn't know, or was made where that place was."""
    path = plan.model.path
    if plan.model.source == "memory":
        raise UsageError(
            f"this plan was made of a {plan.model.pipeline} in memory; say where that model is with"
            f" {option('model', 'DIR')}."
        )
    if path is None:
        raise UsageError(
            f"this plan is for {plan.model.family} by name; say where the model is with {option('model', 'DIR')}."
        )
    if not is_path(path):
        raise UsageError(
            f"this plan's model is in {shown_path(path)}, a directory that doesn't exist here; say where the model is"
            f" with {option('model', 'DIR')}."
        )
    return path


def _device_kind(plan: PlanDocument, device: str | None) -> DeviceKind:
    planned = plan.machine.gpu.device_kind
    if device == "emulated":
        return "emulated"
    if device is not None and device != planned:
        raise PlanMismatch(
            f"{option('device', device)}: this plan was made for an {planned} device; plan again with {option('gpu')}."
        )
    return planned


def meet_gpu(plan: PlanDocument, force: bool) -> tuple[PlanDocument, int, list[str]]:
    """The plan and budget for the GPU that is here, with what changed."""
    from roost.residency.hold.free_memory import fewer_resident_blocks  # imported here: it brings torch

    # CUDA puts the fastest card first, NVML goes by PCI address: both must mean the same card by "first".
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

    try:
        gpu = present_gpu()
    except UsageError as error:
        raise PlanMismatch(
            f"this plan is for {plan.machine.gpu.name}, and there is no CUDA device here: {error} To try the plan on"
            f" the CPU: {option('device', 'emulated')}"
        ) from None
    changes = refuse(plan, gpu_differences(plan, gpu), what="GPU", force=force)
    running, fewer = fewer_resident_blocks(plan, gpu.free_bytes)
    budget_bytes = min(plan.budget.budget_bytes, max(0, gpu.free_bytes - plan.budget.headroom_bytes))
    return running, budget_bytes, [*changes, *fewer]


def without_decoding(ready: ReadyPlan) -> ReadyPlan:
    """The plan of a run that decodes nothing: a VAE that would stay on the device comes only where it is used."""
    components = dict(ready.plan.components)
    changes = []
    for name, each in components.items():
        if each.kind == "vae":
            changes.append(f"{name}: decodes nothing, because the output is the latents")
            if each.strategy == "resident":
                components[name] = revised(each, strategy="snapshot-offload")
    return replace(ready, plan=revised(ready.plan, components=components), changes=(*ready.changes, *changes))
