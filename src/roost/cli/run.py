"""``roost run``: execute a plan, or plan a model and run it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roost.cli import options as opt
from roost.cli.plan import typed_plan_options, was_typed
from roost.cli.screen import show_json, show_note, show_table, show_text
from roost.errors import UsageError
from roost.units import format_bytes, format_seconds, parse_size

if TYPE_CHECKING:
    from roost.api.requests import RunRequest
    from roost.api.running import ReadyPlan
    from roost.plan import PlanDocument

_PLANNING = ("gpu", "vram", "ram", "headroom", "mode", "set", "variant", "dtype")

Target = Annotated[str, typer.Argument(metavar="PLAN|MODEL", help="A plan's YAML file, or a model to plan first.")]
Prompt = Annotated[str, typer.Option("--prompt", help="What to paint.")]
NegativePrompt = Annotated[str | None, typer.Option("--negative-prompt", help="What to avoid.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="OUT", help="A .png or .mp4 file.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the noise.")]
Device = Annotated[
    str | None, typer.Option("--device", metavar="D", help="emulated tries any plan on the CPU; cuda insists on it.")
]
Model = Annotated[str | None, typer.Option("--model", metavar="DIR", help="Where the plan's model is now.")]
Force = Annotated[bool, typer.Option("--force", help="Run on another model or GPU than planned.")]
UpdatePlan = Annotated[
    bool, typer.Option("--update-plan", help="Write what memory did not allow back into the plan's file.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and load nothing.")]


def run(
    context: typer.Context,
    target: Target,
    prompt: Prompt,
    output: Output = None,
    negative_prompt: NegativePrompt = None,
    seed: Seed = 0,
    size: opt.Size = None,
    frames: opt.Frames = None,
    steps: opt.Steps = None,
    batch: opt.Batch = 1,
    guidance: opt.Guidance = None,
    device: Device = None,
    model: Model = None,
    force: Force = False,
    dry_run: DryRun = False,
    update_plan: UpdatePlan = False,
    as_json: opt.Json = False,
    gpu: opt.Gpu = None,
    vram: opt.Vram = None,
    ram: opt.Ram = None,
    headroom: opt.Headroom = None,
    mode: opt.Mode = "auto",
    set: opt.Set = None,
    variant: opt.Variant = None,
    dtype: opt.Dtype = None,
) -> None:
    """Generate with a plan; a model is planned first, by the planning options given here.

    roost run wan.yaml --prompt "a red fox" -o fox.mp4
    """
    from roost.api.requests import RunRequest
    from roost.api.running import check_plan, workload_of_run

    if device not in (None, "cuda", "emulated"):
        raise UsageError(f"--device {device!r} is not known; choose cuda or emulated.")
    if update_plan and not Path(target).is_file():
        raise UsageError(f"--update-plan: {target!r} is not a plan's file; make one with: roost plan MODEL -o FILE")
    typed = typed_plan_options(context)
    request = RunRequest(
        prompt=prompt,
        negative_prompt=negative_prompt,
        output=output,
        seed=seed,
        size=None if size is None else parse_size(size),
        frames=typed.frames,
        steps=typed.steps,
        batch=typed.batch if was_typed(context, "batch") else None,
        guidance=typed.guidance,
    )
    plan = _plan_of(target, context)
    workload_of_run(plan, request)
    ready = check_plan(plan, model=model, device=device, force=force)
    if dry_run:
        _show_dry_run(ready, request, as_json)
    else:
        _run(ready, request, as_json, Path(target) if update_plan else None)


def _plan_of(target: str, context: typer.Context) -> PlanDocument:
    """The plan in the file, or a new plan of the model, kept in the cache directory."""
    from roost.api.planning import keep_plan, load_plan, plan_model

    path = Path(target)
    if path.suffix.lower() in (".yaml", ".yml") or os.path.isfile(path):
        _refuse_planning_options(context)
        return load_plan(path)
    plan = plan_model(target, typed_plan_options(context))
    show_note(f"planned {target}; the plan is kept at {keep_plan(plan)}")
    return plan


def _refuse_planning_options(context: typer.Context) -> None:
    """A plan file has decided what these options decide."""
    typed = [f"--{name}" for name in _PLANNING if was_typed(context, name)]
    if typed:
        raise UsageError(f"{', '.join(typed)}: the plan has decided that; plan again with: roost plan MODEL -o PLAN")


def _run(ready: ReadyPlan, request: RunRequest, as_json: bool, plan_file: Path | None) -> None:
    from roost.api.running import run_plan
    from roost.cli.progress import Progress

    for change in ready.changes:
        show_note(f"change: {change}")
    with Progress() as progress:
        record = run_plan(ready, request, progress.on_component, progress.on_event, plan_file)
    if as_json:
        show_json(asdict(record))
        return
    where = "the emulated GPU (the CPU)" if ready.device_kind == "emulated" else ready.plan.machine.gpu.name
    show_text(f"on {where}: loaded in {format_seconds(record.load_s)}, generated in {format_seconds(record.seconds)}")
    show_table(
        ("Stage", "Component", "Time", "Peak"),
        [
            (each.name, each.component, format_seconds(each.seconds), format_bytes(each.peak_bytes))
            for each in record.stages
        ],
        numbers=(2, 3),
    )
    show_text(f"peak {format_bytes(record.peak_bytes)} of a budget of {format_bytes(ready.budget_bytes)}")
    show_text(f"digest {record.digest}")
    for path in record.output:
        show_text(f"saved {path}")


def _show_dry_run(ready: ReadyPlan, request: RunRequest, as_json: bool) -> None:
    from roost.api.running import check_call, workload_of_run
    from roost.cli.plan_view import show_plan

    check_call(ready, request)
    wanted = workload_of_run(ready.plan, request)
    if as_json:
        show_json(
            {
                "schema": 1,
                "device_kind": ready.device_kind,
                "budget_bytes": ready.budget_bytes,
                "workload": asdict(wanted),
                "seed": request.seed,
                "output": None if request.output is None else str(request.output),
                "changes": list(ready.changes),
            }
        )
        return
    show_plan(ready.plan)
    frames = f" × {wanted.frames} frames" if wanted.frames else ""
    show_text(
        f"would run {wanted.width}×{wanted.height}{frames}, {wanted.steps} steps, seed {request.seed}, on"
        f" {ready.device_kind} within {format_bytes(ready.budget_bytes)}, and write {request.output or 'no file'}"
    )
    for change in ready.changes:
        show_text(f"change: {change}")
