"""``roost profiles``: what was measured on this machine."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from roost.cli.options import Json
from roost.cli.screen import rate_name, rate_value, show_folded, show_json, show_note, show_text
from roost.errors import UsageError

if TYPE_CHECKING:
    from roost.plan.measurements import MeasuredEntry

profiles = typer.Typer(
    help="List what was measured on this machine, by probe and runs; export, import or delete it.",
    invoke_without_command=True,
    rich_markup_mode=None,
)

Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the YAML here.")]
Key = Annotated[str | None, typer.Argument(metavar="KEY", help="An entry that roost profiles lists.")]
All = Annotated[bool, typer.Option("--all", help="Delete everything, unusable files too.")]
Exported = Annotated[Path, typer.Argument(metavar="FILE", help="What roost profiles export wrote.")]


@profiles.callback()
def _list(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is not None:
        if as_json:
            raise UsageError(f"--json goes after the word {context.invoked_subcommand}.")
        return
    from roost.api.measurements.store import list_measured

    listing = list_measured()
    if as_json:
        show_json(listing.document())
        return
    for note in listing.notes:
        show_note(f"note: {note}")
    for kept in listing.entries:
        show_text(kept.key)
        for line in _lines(kept.entry):
            show_folded(line, indent="  ")
    if not listing.entries:
        show_folded(f"nothing measured yet in {listing.folder}; roost probe --save and every roost run add to it")


def _lines(entry: MeasuredEntry) -> list[str]:
    what = f"on {entry.device.text}; the latest of {entry.newest or 'never'}"
    lines = [f"{entry.model_class} {what}" if entry.model_class else what]
    for source in ("measured", "fitted"):
        rates = {name: rate for name, rate in entry.rates.items() if rate.source == source}
        shown = [f"{rate_name(name)} {rate_value(name, rate.value)} (n {rate.n})" for name, rate in rates.items()]
        if shown:
            lines.append(f"{source}: {', '.join(shown)}")
    if entry.kappas:
        factors = (f"{name} {median(each.samples):.3g} (n {len(each.samples)})" for name, each in entry.kappas.items())
        lines.append(f"activations, measured over traced: {', '.join(factors)}")
    steps = [each.step_s for each in entry.residuals if each.step_s]
    if entry.residuals:
        ratios = ", ".join(f"{each.measured / each.predicted:.2f}" for each in steps if each.predicted)
        lines.append(f"runs: {len(entry.residuals)}" + (f"; a step over its prediction: {ratios}" if ratios else ""))
    return lines


@profiles.command("export")
def export(output: Output = None, as_json: Json = False) -> None:
    """Print everything as one YAML document, or write it into a file."""
    from roost.api.measurements.store import export_measured, export_text, write_export

    collection = export_measured()
    if output is not None:
        write_export(collection, output)
    if as_json:
        show_json(collection.model_dump(mode="json", by_alias=True))
    elif output is None:
        typer.echo(export_text(collection), nl=False)
    if output is not None:
        show_note(f"wrote {len(collection.entries)} entries into {output}")


@profiles.command("import")
def import_(file: Exported, as_json: Json = False) -> None:
    """Keep the entries of an exported file, in place of those with the same key."""
    from roost.api.measurements.store import import_measured

    _tell("imported", import_measured(file), as_json)


@profiles.command("delete")
def delete(key: Key = None, everything: All = False, as_json: Json = False) -> None:
    """Delete one entry, or all."""
    from roost.api.measurements.store import delete_measured

    _tell("deleted", delete_measured(key, everything=everything), as_json)


def _tell(what: str, count: int, as_json: bool) -> None:
    if as_json:
        show_json({"schema": 1, what: count})
    else:
        show_text(f"{what} {count} {'entry' if count == 1 else 'entries'}")
