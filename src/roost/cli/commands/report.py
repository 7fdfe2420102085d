"""``roost report``: a bench's results as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from roost.cli.options import Json
from roost.cli.screen import show_json, show_text
from roost.errors import UsageError
from roost.shell_quoting import shown_path

ResultsFile = Annotated[Path, typer.Argument(metavar="RESULTS", help="What roost bench -o wrote.")]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="A .html file.")]


def report(results: ResultsFile, output: Output, as_json: Json = False) -> None:
    """Draw the results of a bench: strategies by seconds and VRAM, measured against predicted.

    roost report results.json -o report.html
    """
    from roost.api.requests.outputs import check_output
    from roost.cli.html.report_page import report_page
    from roost.plan import write_text_atomically
    from roost.tune.results.document import read_results

    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"-o {shown_path(output)}: a report is written as .html; name it like report.html.")
    check_output(output)
    found = read_results(results)
    write_text_atomically(output, report_page(found))
    if as_json:
        show_json({"schema": 1, "output": str(output), "candidates": len(found.candidates), "winner": found.winner})
    else:
        show_text(f"saved {output}: {len(found.candidates)} candidates, winner {found.winner or 'none'}")
