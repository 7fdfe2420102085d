"""``roost run``: execute a plan, or plan a model and run it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from roost.cli import options as opt
from roost.cli.commands.plan import typed_plan_options, was_typed
from roost.cli.screen import show_note
from roost.cli.views.run import show_dry_run, show_record
from roost.errors import UsageError
from roost.shell_quoting import shown_path
from roost.units import parse_size

if TYPE_CHECKING:
    from roost.api.requests.request import RunRequest
    from roost.api.runs.ready import ReadyPlan
    from roost.plan import PlanDocument

_PLANNING = ("gpu", "vram", "ram", "headroom", "mode", "set", "variant", "dtype", "measured")


def run(
    context: typer.Context,
    target: opt.Target,
    prompt: opt.Prompt = None,
    prompts: opt.Prompts = None,
    output: opt.Output = None,
    negative_prompt: opt.NegativePrompt = None,
    seed: opt.Seeds = None,
    image: opt.Images = None,
    lora: opt.Loras = None,
    output_type: opt.OutputType = "decoded",
    size: opt.Size = None,
    frames: opt.Frames = None,
    steps: opt.Steps = None,
    batch: opt.Batch = 1,
    guidance: opt.Guidance = None,
    strength: opt.Strength = None,
    device: opt.Device = None,
    model: opt.Model = None,
    force: opt.Force = False,
    dry_run: opt.DryRun = False,
    update_plan: opt.UpdatePlan = False,
    trace_out: opt.TraceOut = None,
    as_json: opt.Json = False,
    gpu: opt.Gpu = None,
    vram: opt.Vram = None,
    ram: opt.Ram = None,
    headroom: opt.Headroom = None,
    mode: opt.Mode = "auto",
    set: opt.Set = None,
    variant: opt.Variant = None,
    dtype: opt.Dtype = None,
    measured: opt.Measured = True,
) -> None:
    """Generate with a plan; a model is planned first, by the planning options given here.

    roost run wan.yaml --prompt "a red fox" -o fox.mp4
    """
    from roost.api.runs.ready import check_plan, workload_of_run

    if device not in (None, "cuda", "emulated"):
        raise UsageError(f"--device {device!r} is not known; choose cuda or emulated.")
    if update_plan and not Path(target).is_file():
        raise UsageError(
            f"--update-plan: {shown_path(target)} is not a plan's file; make one with: roost plan MODEL -o FILE"
        )
    request = _request(context)
    plan = _plan_of(target, context, request)
    workload_of_run(plan, request)
    ready = check_plan(plan, model=model, device=device, force=force)
    if dry_run:
        show_dry_run(ready, request, as_json=as_json)
    else:
        _run(ready, request, as_json, Path(target) if update_plan else None, trace_out)


def _request(context: typer.Context) -> RunRequest:
    """What was typed, as a request; the plan's values stand where nothing was."""
    from roost.api.requests.request import RunRequest

    given, typed = context.params, typed_plan_options(context)
    size = given["size"]
    return RunRequest(
        prompts=_prompts(given["prompt"], given["prompts"]),
        listed=given["prompts"] is not None,
        negative_prompt=given["negative_prompt"],
        output=given["output"],
        seeds=tuple(given["seed"] or (0,)),
        size=None if size is None else parse_size(size),
        frames=typed.frames,
        steps=typed.steps,
        batch=typed.batch if was_typed(context, "batch") else None,
        guidance=typed.guidance,
        strength=typed.strength,
        output_type=given["output_type"],
        images=tuple(given["image"] or ()),
        loras=tuple(given["lora"] or ()),
    )


def _prompts(prompt: str | None, file: str | None) -> tuple[str, ...]:
    from roost.api.requests.given_files import read_prompts

    if prompt is not None and file is not None:
        raise UsageError("give either --prompt TEXT or --prompts FILE, a file with one prompt a line.")
    if file is not None:
        return read_prompts(file)
    return () if prompt is None else (prompt,)


def _plan_of(target: str, context: typer.Context, request: RunRequest) -> PlanDocument:
    """The plan in the file, or a new plan of the model, kept in the cache directory."""
    from roost.api.models.inspect import inspect_model
    from roost.api.plans.plan import keep_plan, load_plan, plan_model
    from roost.api.runs.call import check_prompt
    from roost.cli.views.plan import show_remedy_run

    path = Path(target)
    if path.suffix.lower() in (".yaml", ".yml") or os.path.isfile(path):
        _refuse_planning_options(context)
        return load_plan(path)
    check_prompt(inspect_model(target, variant=context.params["variant"]), request)  # before the slow planning
    plan = plan_model(target, typed_plan_options(context), show_remedy_run)
    show_note(f"planned {target}; the plan is kept at {keep_plan(plan)}")
    return plan


def _refuse_planning_options(context: typer.Context) -> None:
    """A plan file has decided what these options decide."""
    typed = [f"--{name}" for name in _PLANNING if was_typed(context, name)]
    typed = ["--no-measured" if each == "--measured" and not context.params["measured"] else each for each in typed]
    if typed:
        raise UsageError(f"{', '.join(typed)}: the plan has decided that; plan again with: roost plan MODEL -o PLAN")


def _run(ready: ReadyPlan, request: RunRequest, as_json: bool, plan_file: Path | None, trace_out: Path | None) -> None:
    from roost.api.requests.request import check_trace_path
    from roost.api.runs.run import Listeners, run_plan
    from roost.cli.views.progress import Progress

    check_trace_path(trace_out)
    for change in ready.changes:
        show_note(f"change: {change}")
    with Progress() as progress:
        listeners = Listeners(
            on_component=progress.on_component,
            on_event=progress.on_event,
            on_generation=progress.on_generation,
            trace_out=trace_out,
        )
        record = run_plan(ready, request, listeners, plan_file)
    show_record(ready, record, as_json=as_json)
    if trace_out is not None:
        show_note(_about_trace(trace_out, made=not all(each.skipped for each in record.generations)))


def _about_trace(path: Path, *, made: bool) -> str:
    if not made:
        return f"{path} is not written: every output was there, and nothing ran."
    return f"saved {path}, the measured timeline; it opens in ui.perfetto.dev"
