"""``roost plan``: where every weight of a model lives, and why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roost.api.requests.option_sets import PlanOptions, TunedPlanOptions, TuneOptions
from roost.cli.options import Command, Json, ModelArgument, takes_options
from roost.cli.screen import show_json, show_note
from roost.errors import UsageError
from roost.option_spelling import option
from roost.shell_quoting import shown_path

if TYPE_CHECKING:
    from roost.plan import PlanDocument


@dataclass(frozen=True, kw_only=True)
class PlanCommand(Command):
    model: ModelArgument
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write the plan as YAML."),
    ] = None
    as_json: Json = False
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Show all of it: why, stages, what else there was.")
    ] = False
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 3 also for what only may fit.")] = False
    options: PlanOptions
    tune: Annotated[bool, typer.Option("--tune", help="Let timed trials of the best candidates decide.")] = False
    tuning: TuneOptions
    sweep: Annotated[
        str | None,
        typer.Option(
            "--sweep",
            metavar="WHAT=VALUES",
            help="Plan under many budgets, sizes or batches, like vram=8GiB:48GiB:4GiB, ram=32GiB,64GiB, "
            "size=832x480,1280x720 or batch=1,2,4.",
        ),
    ] = None
    fleet: Annotated[
        str | None,
        typer.Option(
            "--fleet",
            metavar="SPEC",
            help="Plan for several cards, like '4 x l40s', 'rtx-4090 + rtx-3060', or a YAML file of hosts.",
        ),
    ] = None
    layout: Annotated[
        str, typer.Option("--layout", help="Of a fleet: auto, replicas, shared, roles or fsdp.", metavar="L")
    ] = "auto"
    rate: Annotated[
        float | None, typer.Option("--rate", help="Requests per second that reach a fleet; else all come at once.")
    ] = None
    requests: Annotated[int | None, typer.Option("--requests", help="Requests that a fleet is simulated with.")] = None


@takes_options
def plan(given: PlanCommand) -> None:
    """Plan a model's placement on a GPU that is here or one by name; exit code 3 when it doesn't fit.

    roost plan ./Wan2.2-T2V-A14B-Diffusers --gpu rtx-4090 --ram 96GiB -o wan.yaml
    """
    if "tune_seconds" in given.typed and not given.tune:
        raise UsageError("--tune-seconds says how long --tune may take; add --tune.")
    _check_output(given.output)
    _check_fleet(given)
    if given.fleet is not None:
        _give(_fleet(given, given.fleet), given)
        return
    if given.sweep is not None:
        if given.tune:
            raise UsageError("--sweep plans under many budgets, --tune times plans on one; leave one out.")
        _sweep(given, given.sweep)
        return
    _give(_tuned(given) if given.tune else _planned(given), given)


_OF_ONE_CARD = {
    "tune": "trials run on one card",
    "tune_seconds": "trials run on one card",
    "sweep": "a sweep is of one card",
}


def _check_fleet(given: PlanCommand) -> None:
    from roost.api.plans.fleet.plan import NOT_WITH_FLEETS

    if given.fleet is None:
        for name in ("layout", "rate", "requests"):
            if name in given.typed:
                raise UsageError(f"{option(name)} is about a fleet; add --fleet SPEC, like --fleet '4 x l40s'.")
        return
    for name, why in {**NOT_WITH_FLEETS, **_OF_ONE_CARD}.items():
        if name in given.typed:
            raise UsageError(f"--fleet and {option(name)}: {why}; leave one out.")


def _fleet(given: PlanCommand, spec: str) -> PlanDocument:
    from roost.api.plans.fleet.plan import FleetOptions, plan_fleet

    asked = FleetOptions(fleet=spec, layout=given.layout, rate=given.rate, requests=given.requests)
    return plan_fleet(given.model, given.options, asked, lambda what: show_note(f"planning {what}"))


def _planned(given: PlanCommand) -> PlanDocument:
    from roost.api.plans.plan import plan_model
    from roost.cli.views.plan import show_remedy_run

    return plan_model(given.model, given.options, show_remedy_run)


def _tuned(given: PlanCommand) -> PlanDocument:
    from roost.api.tuning import tune_model
    from roost.cli.views.bench import LiveLine

    with LiveLine(tunes=True) as live:
        tuned = tune_model(given.model, given.filled(TunedPlanOptions), live)
    if tuned.why_not is not None:
        show_note(f"--tune: {tuned.why_not}; the prediction decides.")
    return tuned.plan


def _check_output(output: Path | None) -> None:
    from roost.api.requests.outputs import check_output

    if output is not None:
        check_output(output)


def _give(document: PlanDocument, given: PlanCommand) -> None:
    """Writes the plan, shows it, and exits with the code of what doesn't fit."""
    from roost.cli.views.fleet import show_fleet
    from roost.cli.views.plan import show_plan
    from roost.cli.views.plan_details import show_plan_details
    from roost.errors import NothingFits
    from roost.plan import plan_to_yaml, write_text_atomically

    output = given.output
    if output is not None:
        write_text_atomically(output, plan_to_yaml(document))
    if given.as_json:
        show_json(document.model_dump(mode="json", by_alias=True))
    else:
        if document.fleet is not None:
            show_fleet(document)
        elif not given.verbose:
            show_plan(document)
        if given.verbose:
            show_plan_details(document)
    unjudged = document.policy.name == "rules" and document.budget.activations_known is False
    if output is not None and document.fits:
        show_note(_about_saved(document, output, unjudged))
    if not document.fits or (given.strict and document.certainty != "sure"):
        raise typer.Exit(NothingFits.exit_code)


def _about_saved(document: PlanDocument, output: Path, unjudged: bool) -> str:
    """What to do with a saved plan; nothing where nobody knows yet whether it fits."""
    from roost.api.runs.places import run_command

    next_command, why_not = run_command(document, output)
    if not next_command:
        return f"saved {output}. Roost can't run it: {why_not}"
    return f"saved {output}." if unjudged else f"saved {output}. Next: {next_command}"


def _sweep(given: PlanCommand, text: str) -> None:
    """Plans under each value; ``-o`` gets the JSON object. Exit code 3 when nothing fits under any of them."""
    from roost.api.plans.sweep import parse_sweep, sweep_document, sweep_model
    from roost.cli.views.sweep import show_sweep
    from roost.errors import NothingFits
    from roost.plan import write_text_atomically

    output = given.output
    if output is not None and output.suffix != ".json":
        raise UsageError(f"-o {shown_path(output)}: a sweep is written as JSON; name a file that ends in .json.")
    sweep = parse_sweep(text)
    points = list(sweep_model(given.model, given.options, sweep))
    document = sweep_document(sweep, points)
    if output is not None:
        write_text_atomically(output, json.dumps(document, indent=1) + "\n")
        show_note(f"saved {output}.")
    if given.as_json:
        show_json(document)
    else:
        show_sweep(sweep, points)
    if not any(each.plan.fits for each in points):
        raise typer.Exit(NothingFits.exit_code)
