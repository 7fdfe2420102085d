"""``roost timeline``: a plan's generation as a picture, or as a trace for Perfetto."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roost.api.requests.run_option_sets import PlaceOptions
from roost.cli.commands.explain import PlanFile
from roost.cli.options import Command, Json, takes_options
from roost.cli.screen import show_json, show_note, show_text
from roost.errors import UsageError
from roost.shell_quoting import shown_path
from roost.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from roost.api.plans.timeline import Replay
    from roost.plan import PlanDocument

Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="OUT", help="A .html file to look at, or .json for Perfetto.")
]


@dataclass(frozen=True, kw_only=True)
class TimelineCommand(Command):
    plan: PlanFile
    output: Output
    place: PlaceOptions
    as_json: Json = False


@takes_options
def timeline(given: TimelineCommand) -> None:
    """Simulate a plan's first generation again, and draw it: copies, compute and memory over time.

    roost timeline wan.yaml -o wan.html
    """
    from roost.api.plans.plan_files import load_plan
    from roost.api.plans.timeline import replay_plan
    from roost.api.requests.outputs import check_output
    from roost.plan import write_text_atomically
    from roost.timeline import perfetto_document

    output = given.output
    if output.suffix.lower() not in (".html", ".json"):
        raise UsageError(
            f"-o {shown_path(output)}: a timeline is written as .html or .json; name it like timeline.html."
        )
    check_output(output)
    document = load_plan(given.plan)
    replay = replay_plan(document, given.place.model)
    for note in replay.notes:
        show_note(f"note: {note}")
    if output.suffix.lower() == ".json":
        text = json.dumps(perfetto_document([replay.record]), separators=(",", ":"))
    else:
        text = _page(document, replay)
    write_text_atomically(output, text)
    if given.as_json:
        show_json(_summary(replay, output))
    else:
        peak = format_bytes(replay.timeline.peak_bytes)
        show_text(f"saved {output}: predicted {format_seconds(replay.timeline.seconds)}, peak {peak}")


def _page(plan: PlanDocument, replay: Replay) -> str:
    from roost.cli.html.timeline_page import timeline_page
    from roost.facts.stage import is_same_stage, stage_text

    predicted = plan.predicted.stages if plan.predicted else []
    rows = [
        [
            stage_text(key.phase, key.component),
            str(stage.uses),
            format_seconds(stage.seconds),
            _share(stage.compute_s, stage.seconds),
            _share(stage.copy_s, stage.seconds),
            format_seconds(stage.stall_s),
            format_bytes(stage.peak_bytes),
            next((each.binding for each in predicted if is_same_stage(each, key)), "?"),
        ]
        for key, stage in replay.timeline.stages[0].items()
    ]
    return timeline_page(replay.record, rows, [*replay.notes, *([] if plan.fits else [f"It {plan.budget.verdict}"])])


def _share(busy_s: float, seconds: float) -> str:
    # What is copied ahead for the next stage can end after this one.
    return f"{min(1.0, busy_s / seconds):.0%}" if seconds else "?"


def _summary(replay: Replay, output: Path) -> dict[str, object]:
    from roost.facts.stage import stage_text

    return {
        "schema": 1,
        "output": str(output),
        "kind": replay.record.kind,
        "seconds": replay.timeline.seconds,
        "peak_bytes": replay.timeline.peak_bytes,
        "stages": [
            {
                "name": stage_text(key.phase, key.component),
                "component": key.component,
                "phase": key.phase,
                "passes": stage.uses,
                "seconds": stage.seconds,
                "compute_s": stage.compute_s,
                "copy_s": stage.copy_s,
                "wait_s": stage.stall_s,
                "peak_bytes": stage.peak_bytes,
            }
            for key, stage in replay.timeline.stages[0].items()
        ],
        "notes": list(replay.notes),
    }
