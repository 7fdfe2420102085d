"""``roost run``: execute a plan, or plan a model and run it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roost.api.requests.declared import declared_options, typed_options
from roost.api.requests.known_values import is_auto
from roost.api.requests.option_sets import (
    AttentionOptions,
    DecidingOptions,
    FileOptions,
    LoraOptions,
    MachineOptions,
    PlanOptions,
    WorkloadOptions,
)
from roost.api.requests.run_option_sets import BaseOptions, GenerationOptions
from roost.cli.options import Command, Json, takes_options
from roost.cli.screen import show_note, showing
from roost.errors import UsageError
from roost.option_spelling import option
from roost.shell_quoting import shown_path

if TYPE_CHECKING:
    from roost.api.ranks import Team
    from roost.api.requests.request import RunRequest
    from roost.api.runs.ready import ReadyPlan
    from roost.plan import PlanDocument


_OF_A_RUN = (WorkloadOptions, AttentionOptions, FileOptions, LoraOptions)


@dataclass(frozen=True, kw_only=True)
class RunCommand(Command):
    target: Annotated[str, typer.Argument(metavar="PLAN|MODEL", help="A plan's YAML file, or a model to plan first.")]
    generation: GenerationOptions
    loras: LoraOptions
    workload: WorkloadOptions
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="D", help="emulated tries any plan on the CPU; cuda insists on it."),
    ] = None
    place: BaseOptions
    on: Annotated[
        str | None,
        typer.Option(
            "--on", metavar="ray", help="Run a fleet's plan on Ray, started here, or joined at ray:HOST:PORT."
        ),
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Run on another model or GPU than planned.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and load nothing.")] = False
    update_plan: Annotated[
        bool, typer.Option("--update-plan", help="Write what memory did not allow back into the plan's file.")
    ] = False
    trace_out: Annotated[
        Path | None,
        typer.Option("--trace-out", metavar="FILE", help="Write the measured timeline as a .json trace for Perfetto."),
    ] = None
    as_json: Json = False
    # How a model is planned; each of these sets is refused beside a plan's file.
    machine: MachineOptions
    deciding: DecidingOptions


@takes_options
def run(given: RunCommand) -> None:
    """Generate with a plan; a model is planned first, by the planning options given here.

    roost run wan.yaml --prompt "a red fox" -o fox.mp4
    """
    from roost.api.ranks import Team

    with Team() as team, showing(team.speaks):
        _run_in(team, given)


def _run_in(team: Team, given: RunCommand) -> None:
    from roost.api.plans.ranks import check_ranks, sharded_components
    from roost.api.requests.request import run_request
    from roost.api.runs.places import place_of
    from roost.api.runs.ready import check_plan, foresee_plan, workload_of_run
    from roost.cli.views.run import show_dry_run

    if given.device not in (None, "cuda", "emulated"):
        raise UsageError(f"--device {given.device!r} is not known; choose cuda or emulated.")
    if given.update_plan and not Path(given.target).is_file():
        raise UsageError(
            f"--update-plan: {shown_path(given.target)} is not a plan's file; make one with: roost plan MODEL -o FILE"
        )
    request = run_request(given.generation, given.loras, given.workload, given.typed)
    if given.on is not None:
        _check_on(given, request, team)
    plan, request = _plan_of(given, request)
    if given.on is not None:
        _run_on(given, plan, request)
        return
    workload_of_run(plan, request)
    check_ranks(plan, team.ranks)
    if sharded_components(plan):
        team.join("emulated" if given.device == "emulated" else plan.machine.gpu.device_kind)
    checked = foresee_plan if given.dry_run else check_plan
    place = place_of(plan, given.place)
    ready = checked(plan, model=place, device=given.device, force=given.force, request=request, group=team.group)
    team.agree("checked")
    if given.dry_run:
        show_dry_run(ready, request, as_json=given.as_json)
    else:
        _run(ready, request, given, team)


def _check_on(given: RunCommand, request: RunRequest, team: Team) -> None:
    """Raises UsageError for what is not to be asked of several workers, before anything is planned."""
    on = option("on", given.on)
    if team.ranks is not None and team.ranks.world > 1:
        raise UsageError(
            f"torchrun started {team.ranks.world} processes, and {on} starts its own; run it with roost alone."
        )
    refused = {"trace_out": given.trace_out, "update_plan": given.update_plan, "lora": request.loras}
    for name in (*(name for name, value in refused.items() if value), *("fuse" for _ in given.typed & {"fuse"})):
        raise UsageError(f"{option(name)} is for a run on one card; leave it out of a run {on}.")
    if not _is_plan(given.target):
        raise UsageError(f"{on} runs a fleet's plan; make one with: roost plan MODEL --fleet SPEC -o PLAN")


def _run_on(given: RunCommand, plan: PlanDocument, request: RunRequest) -> None:
    """Runs a plan with several workers."""
    from roost.api.fleets.on_ray import RayOptions, run_on_ray
    from roost.api.fleets.run import FleetRun, check_fleet
    from roost.api.runs.places import place_of
    from roost.cli.views.run import show_dry_run, show_record
    from roost.cli.views.workers import WorkersProgress
    from roost.fleet.ray_cluster import parse_on

    assert given.on is not None
    address = parse_on(given.on)
    place = place_of(plan, given.place)
    ready = check_fleet(plan, model=place, device=given.device, force=given.force)
    if given.dry_run:
        show_dry_run(ready, request, as_json=given.as_json, fleet=plan)
        return
    with WorkersProgress() as progress:
        run = FleetRun(document=plan, ready=ready, request=request, on_note=progress.on_note)
        options = RayOptions(address=address, model=place, device=given.device, force=given.force)
        record = run_on_ray(run, options, progress.on_worker)
    show_record(ready, record, as_json=given.as_json)


def _is_plan(target: str) -> bool:
    from roost.api.models.files.inspect_files import is_weight_file

    path = Path(target)
    return path.suffix.lower() in (".yaml", ".yml") or (os.path.isfile(path) and not is_weight_file(target))


def _plan_of(given: RunCommand, request: RunRequest) -> tuple[PlanDocument, RunRequest]:
    """The plan in the file, or a new plan of the model, kept in the cache directory; and the request in its groups."""
    from roost.api.plans.plan_files import load_plan
    from roost.api.requests.weight_files import files_of, with_moved_files
    from roost.plan.revision import revised

    options = given.filled(PlanOptions)
    if not _is_plan(given.target):
        return _new_plan(given, options, request)
    _refuse_planning_options(options, given.typed)
    plan = load_plan(Path(given.target))
    if given.deciding.attention is not None:
        plan = revised(plan, attention=given.deciding.attention)
    plan = with_moved_files(plan, files_of(given.deciding))
    if not _is_open(given, request):
        return plan, request
    from roost.api.runs.groups import group_for_plan, grouped
    from roost.cli.views.run import show_group

    choice = group_for_plan(plan, request, given.place.model)
    show_group(choice)
    return plan, grouped(request, choice.size)


def _new_plan(given: RunCommand, options: PlanOptions, request: RunRequest) -> tuple[PlanDocument, RunRequest]:
    from roost.api.models.inspect import inspect_model
    from roost.api.plans.plan import plan_model
    from roost.api.plans.plan_files import keep_plan
    from roost.api.requests.weight_files import files_of
    from roost.api.runs.call import check_prompt
    from roost.cli.views.plan import show_remedy_run

    inventory = inspect_model(given.target, variant=options.variant, files=files_of(options))
    check_prompt(inventory, request)  # before the slow planning
    if _is_open(given, request):
        from roost.api.runs.groups import group_for_model, grouped
        from roost.cli.views.run import show_group

        choice = group_for_model(given.target, options, request)
        show_group(choice)
        request = grouped(request, choice.size)
    if request.group is not None:
        options = replace(options, batch=request.group)
    plan = plan_model(given.target, options, show_remedy_run)
    show_note(f"planned {given.target}; the plan is kept at {keep_plan(plan)}")
    return plan, replace(request, loras=())  # the plan has them


def _is_open(given: RunCommand, request: RunRequest) -> bool:
    """Whether the size of its groups is to be chosen."""
    return request.listed and is_auto(given.workload.batch)


def _refuse_planning_options(options: PlanOptions, typed: frozenset[str]) -> None:
    """A plan file has decided what these options decide; workload, attention, LoRAs and files' places are the run's."""
    of_the_run = {name for each in _OF_A_RUN for name in declared_options(each)}
    flags = typed_options(options, typed - of_the_run)
    if flags:
        raise UsageError(f"{', '.join(flags)}: the plan has decided that; plan again with: roost plan MODEL -o PLAN")


def _run(ready: ReadyPlan, request: RunRequest, given: RunCommand, team: Team) -> None:
    from roost.api.requests.outputs import check_trace_path
    from roost.api.runs.run import Listeners, run_plan
    from roost.cli.views.progress import Progress
    from roost.cli.views.run import show_record

    if not team.speaks:
        run_plan(ready, request)
        return
    trace_out = given.trace_out
    check_trace_path(trace_out)
    for change in ready.changes:
        show_note(f"change: {change}")
    with Progress() as progress:
        listeners = Listeners(
            on_component=progress.on_component,
            on_event=progress.on_event,
            on_generation=progress.on_generation,
            on_note=show_note,
            on_rehearsal=progress.on_rehearsal,
            trace_out=trace_out,
        )
        record = run_plan(ready, request, listeners, Path(given.target) if given.update_plan else None)
    show_record(ready, record, as_json=given.as_json)
    if trace_out is not None:
        show_note(_about_trace(trace_out, made=not all(each.skipped for each in record.generations)))


def _about_trace(path: Path, *, made: bool) -> str:
    if not made:
        return f"{path} is not written: every output was there, and nothing ran."
    return f"saved {path}, the measured timeline; it opens in ui.perfetto.dev"
