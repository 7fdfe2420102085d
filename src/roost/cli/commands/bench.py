"""``roost bench``: time every way to run a model, and say which one is fastest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roost.api.requests.run_option_sets import BenchOptions
from roost.cli.options import Command, Json, takes_options
from roost.cli.screen import show_json, show_note
from roost.errors import NothingFits, OutOfMemory, RoostError

if TYPE_CHECKING:
    from roost.tune.results.records import BenchResults


@dataclass(frozen=True, kw_only=True)
class BenchCommand(Command):
    target: Annotated[str, typer.Argument(metavar="MODEL|PLAN", help="A model's directory, or a plan's YAML file.")]
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the results as JSON.")
    ] = None
    as_json: Json = False
    options: BenchOptions


@takes_options
def bench(given: BenchCommand) -> None:
    """Time each residency strategy in a process of its own, and compare outputs bit for bit.

    roost bench ./Wan2.2-T2V-A14B-Diffusers --vram 12GiB
    """
    from roost.api.bench import bench_model
    from roost.api.requests.outputs import check_output
    from roost.cli.views.bench import LiveLine, show_results
    from roost.plan import write_text_atomically
    from roost.tune.results.document import results_document

    if given.output is not None:
        check_output(given.output)
    with LiveLine() as live:
        results = bench_model(given.target, given.options, given.typed, live)
    document = results_document(results)
    if given.output is not None:
        write_text_atomically(given.output, json.dumps(document, indent=1, allow_nan=False) + "\n")
    if given.as_json:
        show_json(document)
    else:
        show_results(results)
    if given.output is not None:
        show_note(f"saved {given.output}")
    if results.winner is None:
        raise _failure(results)


def _failure(results: BenchResults) -> RoostError:
    """Why there is no winner; each row says more."""
    statuses = {row.result.status for row in results.rows} - {"skipped"}
    if not statuses:
        return NothingFits("nothing was tried, since the model says that none of it fits; give more --vram.")
    if statuses == {"oom"}:
        return OutOfMemory("no trial ran to its end: each ran out of memory; give more --vram or a smaller workload.")
    return RoostError("no trial ran to its end; each candidate's row says why.")
