"""``roost export``: a plan's placement as SGLang's flags, or as a script for diffusers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from roost.api.requests.run_option_sets import PlaceOptions
from roost.cli.options import Command, Json, takes_options
from roost.cli.screen import show_json, show_note, show_text
from roost.errors import UsageError
from roost.option_spelling import given as as_given
from roost.shell_quoting import shown_path

_TARGETS = ("sglang", "diffusers")


@dataclass(frozen=True, kw_only=True)
class ExportCommand(Command):
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan's YAML file.")]
    target: Annotated[str, typer.Option("--to", metavar="TARGET", help="sglang or diffusers.")]
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write it there instead of to stdout.")
    ] = None
    place: PlaceOptions
    as_json: Json = False


@takes_options
def export(given: ExportCommand) -> None:
    """Say a plan's placement in the words of SGLang or diffusers; what they have none for is a note.

    roost export wan.yaml --to diffusers -o wan.py
    """
    from roost.api.plans.export.diffusers import diffusers_script
    from roost.api.plans.export.sglang import sglang_command
    from roost.api.plans.plan_files import load_plan
    from roost.api.requests.outputs import check_output
    from roost.plan import write_text_atomically

    if given.target not in _TARGETS:
        raise UsageError(f"{as_given('to', given.target)} is not known; choose one of {', '.join(_TARGETS)}.")
    if given.output is not None:
        check_output(given.output)
    plan = load_plan(given.plan)
    found = (sglang_command if given.target == "sglang" else diffusers_script)(plan, given.place.model)
    for note in found.notes:
        show_note(f"note: {note}")
    if given.output is not None:
        write_text_atomically(given.output, found.text)
        show_note(f"saved {shown_path(given.output)}.")
    if given.as_json:
        show_json({"schema": 1, "target": given.target, "text": found.text, "notes": list(found.notes)})
    elif given.output is None:
        for line in found.text.splitlines():
            show_text(line)
