"""Running: a plan checked against the model and the machine, loaded, executed, saved and recorded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roost.api.inspection import inspect_model, profile_of
from roost.api.machine import present_gpu
from roost.api.preflight import (
    bind_files,
    check_components,
    check_executable,
    check_fits,
    check_runnable,
    check_workload,
    gpu_differences,
    model_differences,
    refuse,
)
from roost.api.requests import RunRequest
from roost.api.updating import update_plan
from roost.errors import PlanMismatch, UsageError
from roost.facts import DeviceKind, Inventory, Workload
from roost.plan import PlanDocument, read_plan
from roost.probes.host import read_host

if TYPE_CHECKING:
    from roost.residency.attach import Held
    from roost.residency.generate import GenerationRequest
    from roost.residency.stages import OnEvent, StageRecord

OnComponent = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What one run did; its fields are what ``roost run --json`` prints. Stages are the runtime's ``StageRecord``."""

    schema: int = 1
    output: list[str]
    digest: str
    latent_digest: str | None
    device_kind: DeviceKind
    load_s: float
    seconds: float
    stages: tuple[StageRecord, ...]
    peak_bytes: int
    changes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyPlan:
    """A plan that passed its checks: what really runs, where, and how that deviates from the document."""

    plan: PlanDocument
    model_dir: Path
    inventory: Inventory
    device_kind: DeviceKind
    budget_bytes: int
    changes: tuple[str, ...]


def workload_of_run(plan: PlanDocument, request: RunRequest) -> Workload:
    """The plan's workload with the request's sizes; raises PlanMismatch when larger than planned."""
    planned = Workload(**plan.workload.model_dump())
    width, height = request.size or (planned.width, planned.height)
    if request.frames is not None and planned.frames is None:
        raise UsageError(f"--frames {request.frames}: this plan is for pictures; leave --frames out.")
    asked = {name: getattr(request, name) for name in ("frames", "steps", "batch", "guidance")}
    wanted = replace(
        planned, width=width, height=height, **{name: value for name, value in asked.items() if value is not None}
    )
    for name in ("frames", "steps", "batch"):
        value = getattr(wanted, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value} is out of range; give a whole number from 1.")
    check_workload(plan, wanted)
    return wanted


def check_plan(
    plan: PlanDocument, *, model: str | None = None, device: str | None = None, force: bool = False
) -> ReadyPlan:
    """The plan, ready to load on this machine; nothing is loaded yet.

    Raises PlanMismatch for another model or GPU (unless forced), NothingFits when memory is short, UsageError for a
    plan that this machine can't run. With less free VRAM than planned, fewer blocks stay resident.
    """
    check_executable(plan)
    path = plan.model.path if model is None else model
    if path is None:
        raise UsageError(f"this plan is for {plan.model.family} by name; say where the model is with --model DIR.")
    inventory = inspect_model(path, variant=plan.model.variant)
    if inventory.path is None:
        raise UsageError(f"--model {path!r} is only a name, and a run needs the files; give their directory.")
    changes = refuse(plan, model_differences(plan, inventory), what="model", force=force)
    check_components(plan, inventory)
    check_runnable(inventory, profile_of(inventory))
    kind = _device_kind(plan, device)
    running, budget_bytes = bind_files(plan, inventory), plan.budget.budget_bytes
    if kind == "cuda":
        running, budget_bytes, found = meet_gpu(running, force)
        changes += found
    elif plan.machine.gpu.device_kind != "emulated":
        changes.append(f"device: emulated on the CPU instead of {plan.machine.gpu.name}")
    if not force:
        check_fits(running, read_host())
    return ReadyPlan(
        plan=running,
        model_dir=Path(inventory.path),
        inventory=inventory,
        device_kind=kind,
        budget_bytes=budget_bytes,
        changes=tuple(changes),
    )


def _device_kind(plan: PlanDocument, device: str | None) -> DeviceKind:
    planned = plan.machine.gpu.device_kind
    if device == "emulated":
        return "emulated"
    if device is not None and device != planned:
        raise PlanMismatch(f"--device {device}: this plan was made for an {planned} device; plan again with --gpu.")
    return planned


def meet_gpu(plan: PlanDocument, force: bool) -> tuple[PlanDocument, int, list[str]]:
    """The plan and budget for the GPU that is here, with what changed."""
    from roost.residency.free_memory import fewer_resident_blocks  # imported here: it brings torch

    # CUDA puts the fastest card first, NVML goes by PCI address: both must mean the same card by "first".
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

    try:
        gpu = present_gpu()
    except UsageError as error:
        raise PlanMismatch(
            f"this plan is for {plan.machine.gpu.name}, and there is no CUDA device here: {error} To try the plan on"
            " the CPU: --device emulated"
        ) from None
    changes = refuse(plan, gpu_differences(plan, gpu), what="GPU", force=force)
    running, fewer = fewer_resident_blocks(plan, gpu.free_bytes)
    budget_bytes = min(plan.budget.budget_bytes, max(0, gpu.free_bytes - plan.budget.headroom_bytes))
    return running, budget_bytes, [*changes, *fewer]


def open_pipeline(ready: ReadyPlan, on_component: OnComponent | None = None, on_event: OnEvent | None = None) -> Held:
    """The pipeline of a checked plan, loaded and held; close it, or use it in a ``with``."""
    from roost.residency.devices import open_device  # imported here: these bring torch
    from roost.residency.loader import load_pipeline as load

    device = open_device(ready.device_kind, ready.budget_bytes)
    try:
        held = load(ready.plan, ready.model_dir, device, on_component, on_event)
    except BaseException:
        device.close()
        raise
    held.then(device.close)
    return held


def tie(held: Held) -> None:
    """Keeps the hold alive as long as its pipeline, whose ``roost`` it is until it is closed."""
    attributes = vars(held.pipeline)
    attributes["roost"] = held
    held.then(lambda: attributes.pop("roost", None))


def load_pipeline(
    plan: PlanDocument | str | Path, *, model: str | None = None, device: str | None = None, force: bool = False
) -> Any:
    """A diffusers pipeline, ready to call, whose weights live where ``plan`` says.

    ``plan`` is a document or a YAML file's path. Raises what ``roost run`` reports: PlanMismatch, NothingFits,
    OutOfMemory, InvalidFile, UsageError.
    """
    document = plan if isinstance(plan, PlanDocument) else read_plan(Path(plan))
    held = open_pipeline(check_plan(document, model=model, device=device, force=force))
    tie(held)
    return held.pipeline


def check_call(ready: ReadyPlan, request: RunRequest) -> GenerationRequest:
    """The pipeline's call, found out before anything loads.

    Raises PlanMismatch for a larger workload than planned, UsageError for what the pipeline doesn't take or lacks.
    """
    from roost.pipelines.classes import pipeline_class  # imported here: these bring torch
    from roost.residency.generate import GenerationRequest, accepts, call_arguments
    from roost.residency.media import check_output_path

    profile, wanted = profile_of(ready.inventory), workload_of_run(ready.plan, request)
    if request.output is not None:
        check_output_path(request.output, video=profile.task == "video")
    pipeline = pipeline_class(ready.plan.model.pipeline)
    if request.guidance is None and not accepts(pipeline, profile.guidance_argument):
        wanted = replace(wanted, guidance=None)  # the family's default says nothing to this pipeline
    call = GenerationRequest(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        guidance_argument=profile.guidance_argument,
        **asdict(wanted),
    )
    call_arguments(pipeline, call)
    return call


def run_plan(
    ready: ReadyPlan,
    request: RunRequest,
    on_component: OnComponent | None = None,
    on_event: OnEvent | None = None,
    plan_file: Path | None = None,
) -> RunRecord:
    """Loads, generates and saves; what memory did not allow is written back into ``plan_file``.

    Raises OutOfMemory, and UsageError for an option that the pipeline can't take.
    """
    from roost.residency.generate import generate  # imported here: these bring torch
    from roost.residency.media import save_outputs

    call = check_call(ready, request)
    began_s = time.perf_counter()
    held = open_pipeline(ready, on_component, on_event)
    try:
        load_s = time.perf_counter() - began_s
        generation = generate(held, call)
    finally:
        held.abandon()  # one generation: nothing comes back to host memory, which may be smaller than the device's
    if plan_file is not None and held.demotions:
        update_plan(plan_file, held.demotions)
    saved = (
        []
        if request.output is None
        else save_outputs(generation.output, request.output, profile_of(ready.inventory).frames_per_s)
    )
    return RunRecord(
        output=[str(path) for path in saved],
        digest=generation.digest,
        latent_digest=generation.latent_digest,
        device_kind=ready.device_kind,
        load_s=load_s,
        seconds=generation.seconds,
        stages=generation.stages,
        peak_bytes=generation.peak_bytes,
        changes=[*ready.changes, *held.changes],
    )
