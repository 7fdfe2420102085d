"""``roost bench``: time every way to run a model, and say which one is fastest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roost.cli import options as opt
from roost.cli.commands.plan import typed_plan_options, was_typed
from roost.cli.screen import show_json, show_note
from roost.errors import NothingFits, OutOfMemory, RoostError, UsageError

if TYPE_CHECKING:
    from roost.api.bench import BenchTarget
    from roost.tune.bench import BenchSettings
    from roost.tune.results.records import BenchResults

_DECIDED_BY_PLAN = (
    *("gpu", "vram", "ram", "headroom", "size", "frames", "steps", "batch", "guidance", "strength"),
    *("variant", "dtype"),
)

Target = Annotated[str, typer.Argument(metavar="MODEL|PLAN", help="A model's directory, or a plan's YAML file.")]
Strategies = Annotated[
    str,
    typer.Option(
        "--strategies",
        metavar="all|LIST",
        help="resident, component-offload, snapshot-offload, layerwise-offload, rules, search.",
    ),
]
Rounds = Annotated[int, typer.Option("--rounds", help="How often each one left in the race is timed.")]
TrialSteps = Annotated[int, typer.Option("--trial-steps", help="Denoising steps of a trial.")]
MaxSeconds = Annotated[float, typer.Option("--max-seconds", help="Time for all of it.")]
LinkSpeed = Annotated[
    str | None, typer.Option("--link-speed", metavar="SPEED", help="Of an emulated GPU's copies, like 2GB/s.")
]
Against = Annotated[
    str | None, typer.Option("--against", metavar="diffusers", help="Also time diffusers' own offload modes.")
]
PlanModel = Annotated[str | None, typer.Option("--model", metavar="DIR", help="Where a plan's model is now.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure anew what an interrupted bench has measured.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the results as JSON.")]


def bench(
    context: typer.Context,
    target: Target,
    strategies: Strategies = "all",
    rounds: Rounds = 3,
    trial_steps: TrialSteps = 5,
    max_seconds: MaxSeconds = 300.0,
    against: Against = None,
    fresh: Fresh = False,
    output: Output = None,
    as_json: opt.Json = False,
    gpu: opt.Gpu = None,
    vram: opt.Vram = None,
    link_speed: LinkSpeed = None,
    ram: opt.Ram = None,
    headroom: opt.Headroom = None,
    size: opt.Size = None,
    frames: opt.Frames = None,
    steps: opt.Steps = None,
    batch: opt.Batch = 1,
    guidance: opt.Guidance = None,
    strength: opt.Strength = None,
    variant: opt.Variant = None,
    dtype: opt.Dtype = None,
    model: PlanModel = None,
) -> None:
    """Time each residency strategy in a process of its own, and compare outputs bit for bit.

    roost bench ./Wan2.2-T2V-A14B-Diffusers --vram 12GiB
    """
    from roost.api.bench import bench_target
    from roost.api.requests.request import check_output
    from roost.cli.views.bench import show_results
    from roost.plan import write_text_atomically
    from roost.tune.bench import BenchSettings
    from roost.tune.results.document import results_document
    from roost.tune.trials.candidates import parse_strategies

    wanted = parse_strategies(strategies)
    if against not in (None, "diffusers"):
        raise UsageError(f"--against {against!r} is not known; diffusers is.")
    for option, value in (("--rounds", rounds), ("--trial-steps", trial_steps), ("--max-seconds", max_seconds)):
        if not 1 <= value < 2**31:
            raise UsageError(f"{option} {value:g} is out of range; give a number from 1.")
    if output is not None:
        check_output(output)
    _refuse_decided(context, target)
    found = bench_target(target, typed_plan_options(context), link_speed, model)
    settings = BenchSettings(rounds=rounds, max_seconds=max_seconds)
    results = _measure(found, wanted, settings, trial_steps, fresh=fresh, peers=against is not None)
    document = results_document(results)
    if output is not None:
        write_text_atomically(output, json.dumps(document, indent=1, allow_nan=False) + "\n")
    if as_json:
        show_json(document)
    else:
        show_results(results)
    _show_saved(output)
    if results.winner is None:
        raise _failure(results)


def _show_saved(output: Path | None) -> None:
    if output is not None:
        show_note(f"saved {output}")


def _failure(results: BenchResults) -> RoostError:
    """Why there is no winner; each row says more."""
    statuses = {row.result.status for row in results.rows} - {"skipped"}
    if not statuses:
        return NothingFits("nothing was tried, since the model says that none of it fits; give more --vram.")
    if statuses == {"oom"}:
        return OutOfMemory("no trial ran to its end: each ran out of memory; give more --vram or a smaller workload.")
    return RoostError("no trial ran to its end; each candidate's row says why.")


def _refuse_decided(context: typer.Context, target: str) -> None:
    """A plan file has decided what these options decide."""
    from roost.api.bench import is_plan_file

    if not is_plan_file(target):
        if was_typed(context, "model"):
            raise UsageError("--model: says where a plan's model is, and this is a model; leave it out.")
        return
    typed = [f"--{name}" for name in _DECIDED_BY_PLAN if was_typed(context, name)]
    if typed:
        raise UsageError(f"{', '.join(typed)}: the plan has decided that; leave it out, or give the model instead.")


def _measure(
    found: BenchTarget,
    strategies: tuple[str, ...],
    settings: BenchSettings,
    trial_steps: int,
    *,
    fresh: bool,
    peers: bool,
) -> BenchResults:
    from roost.api.models.traces import configs_of
    from roost.cli.trials import run_trials
    from roost.tune.trials.candidates import list_candidates
    from roost.tune.trials.peers import PEERS
    from roost.tune.trials.runner import world_of

    asked = found.asked
    entrants = list_candidates(asked, strategies, found.given, PEERS if peers else ())
    with configs_of(asked.question.inventory) as model_dir:
        world = world_of(asked, entrants, model_dir, trial_steps, found.link_bytes_per_s)
        return run_trials(asked, entrants, world, settings, fresh=fresh)
