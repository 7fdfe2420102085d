"""``roost plan``: where every weight of a model lives, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roost.cli import options as opt
from roost.cli.screen import show_json, show_note
from roost.errors import UsageError
from roost.shell_quoting import shown_path

if TYPE_CHECKING:
    from roost.api.requests.options import PlanOptions
    from roost.plan import PlanDocument

PlanOutput = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the plan as YAML.")]

Tune = Annotated[bool, typer.Option("--tune", help="Let timed trials of the best candidates decide.")]
TuneSeconds = Annotated[float, typer.Option("--tune-seconds", help="Time for the trials.")]
Sweep = Annotated[
    str | None,
    typer.Option(
        "--sweep",
        metavar="WHAT=VALUES",
        help="Plan under many budgets or sizes, like vram=8GiB:48GiB:4GiB, ram=32GiB,64GiB or size=832x480,1280x720.",
    ),
]


def plan(
    context: typer.Context,
    model: opt.ModelArgument,
    output: PlanOutput = None,
    as_json: opt.Json = False,
    gpu: opt.Gpu = None,
    vram: opt.Vram = None,
    ram: opt.Ram = None,
    headroom: opt.Headroom = None,
    pinned_max: opt.PinnedMax = None,
    num_gpus: opt.NumGpus = 1,
    platform: opt.Platform = None,
    size: opt.Size = None,
    frames: opt.Frames = None,
    steps: opt.Steps = None,
    batch: opt.Batch = 1,
    guidance: opt.Guidance = None,
    strength: opt.Strength = None,
    mode: opt.Mode = "auto",
    policy: opt.Policy = "search",
    generations: opt.Generations = 1,
    objective: opt.Objective = "seconds",
    max_slowdown: opt.MaxSlowdown = 1.2,
    allow: opt.Allow = None,
    set: opt.Set = None,
    layerwise_offload_components: opt.LayerwiseComponents = None,
    dit_layerwise_offload: opt.DitLayerwise = None,
    dit_cpu_offload: opt.DitCpuOffload = None,
    text_encoder_cpu_offload: opt.TextEncoderCpuOffload = None,
    image_encoder_cpu_offload: opt.ImageEncoderCpuOffload = None,
    vae_cpu_offload: opt.VaeCpuOffload = None,
    dit_offload_prefetch_size: opt.Prefetch = None,
    fsdp: opt.Fsdp = None,
    cache_dit: opt.CacheDit = False,
    dmd_steps: opt.DmdSteps = None,
    role: opt.Role = "monolithic",
    variant: opt.Variant = None,
    dtype: opt.Dtype = None,
    measured: opt.Measured = True,
    tune: Tune = False,
    tune_seconds: TuneSeconds = 180.0,
    sweep: Sweep = None,
) -> None:
    """Plan a model's placement on a GPU that is here or one by name; exit code 3 when it doesn't fit.

    roost plan ./Wan2.2-T2V-A14B-Diffusers --gpu rtx-4090 --ram 96GiB -o wan.yaml
    """

    if was_typed(context, "tune_seconds") and not tune:
        raise UsageError("--tune-seconds says how long --tune may take; add --tune.")
    _check_output(output)
    options = typed_plan_options(context)
    if sweep is not None:
        if tune:
            raise UsageError("--sweep plans under many budgets, --tune times plans on one; leave one out.")
        _sweep(model, options, sweep, output, as_json)
        return
    _give(_planned(model, options, tune_seconds if tune else None), output, as_json)


def _planned(model: str, options: PlanOptions, tune_s: float | None) -> PlanDocument:
    from roost.api.plans.plan import plan_model
    from roost.cli.trials import tune_plan
    from roost.cli.views.plan import show_remedy_run

    return plan_model(model, options, show_remedy_run) if tune_s is None else tune_plan(model, options, tune_s)


def _check_output(output: Path | None) -> None:
    from roost.api.requests.request import check_output

    if output is not None:
        check_output(output)


def _give(document: PlanDocument, output: Path | None, as_json: bool) -> None:
    """Writes the plan, shows it, and exits with the code of what doesn't fit."""
    from roost.cli.views.plan import show_plan
    from roost.errors import NothingFits
    from roost.plan import plan_to_yaml, write_text_atomically

    if output is not None:
        write_text_atomically(output, plan_to_yaml(document))
    if as_json:
        show_json(document.model_dump(mode="json", by_alias=True))
    else:
        show_plan(document)
    unjudged = document.policy.name == "rules" and document.budget.activations_known is False
    if output is not None and document.fits:
        show_note(_about_saved(document, output, unjudged))
    if not document.fits:
        raise typer.Exit(NothingFits.exit_code)


def _about_saved(document: PlanDocument, output: Path, unjudged: bool) -> str:
    """What to do with a saved plan; nothing where nobody knows yet whether it fits."""
    from roost.api.runs.ready import run_command

    next_command, why_not = run_command(document, output)
    if not next_command:
        return f"saved {output}. Roost can't run it: {why_not}"
    return f"saved {output}." if unjudged else f"saved {output}. Next: {next_command}"


def _sweep(model: str, options: PlanOptions, text: str, output: Path | None, as_json: bool) -> None:
    """Plans under each value; ``output`` gets the JSON object. Exit code 3 when nothing fits under any of them."""
    from roost.api.plans.sweep import parse_sweep, sweep_document, sweep_model
    from roost.cli.views.sweep import show_sweep
    from roost.errors import NothingFits
    from roost.plan import write_text_atomically

    if output is not None and output.suffix != ".json":
        raise UsageError(f"-o {shown_path(output)}: a sweep is written as JSON; name a file that ends in .json.")
    sweep = parse_sweep(text)
    points = list(sweep_model(model, options, sweep))
    document = sweep_document(sweep, points)
    if output is not None:
        write_text_atomically(output, json.dumps(document, indent=1) + "\n")
        show_note(f"saved {output}.")
    if as_json:
        show_json(document)
    else:
        show_sweep(sweep, points)
    if not any(each.plan.fits for each in points):
        raise typer.Exit(NothingFits.exit_code)


def typed_plan_options(context: typer.Context) -> PlanOptions:
    """The options that were typed, by the framework's word for it, never by comparing values with defaults."""
    from roost.api.requests.options import PlanOptions

    names = PlanOptions.__dataclass_fields__
    typed = {name: value for name, value in context.params.items() if name in names and was_typed(context, name)}
    return PlanOptions(**typed)


def was_typed(context: typer.Context, name: str) -> bool:
    """Whether the option stood on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
