"""``roost probe``: how fast this machine is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roost.cli.options import Json
from roost.cli.screen import off_by, rate_name, rate_value, show_json, show_note, show_table, show_text
from roost.errors import UsageError
from roost.facts.rates import RateKey
from roost.units import format_seconds

if TYPE_CHECKING:
    from roost.api.measurements.probe import ProbeReport

Device = Annotated[str | None, typer.Option("--device", metavar="D", help="cuda or emulated; the GPU if there is one.")]
File = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="Time the disk with this large file, instead of a temporary one."),
]
Save = Annotated[bool, typer.Option("--save", help="Keep the rates: plans on this machine then use them.")]


def probe(device: Device = None, file: File = None, save: Save = False, as_json: Json = False) -> None:
    """Time this machine's link, disk, arithmetic and launches, beside what a plan takes them for.

    roost probe --save
    """
    from roost.api.measurements.probe import probe_machine

    if device not in (None, "cuda", "emulated"):
        raise UsageError(f"--device {device!r} is not known; choose cuda or emulated.")
    show_note("timing this machine takes some 10 to 30 seconds; other work on it spoils the figures")
    report = probe_machine(device=device, file=file, save=save)
    if as_json:
        show_json(report.document())
    else:
        _show(report)


def _show(report: ProbeReport) -> None:
    show_text(f"on {report.device.text}, in {format_seconds(report.seconds)}")
    show_table(
        ("Rate", "Measured", "Within", "Otherwise", "Within", "Ratio"),
        [_row(report, key) for key in report.unmeasured],
        numbers=(1, 2, 3, 4, 5),
    )
    for key, reason in report.missing.items():
        show_text(f"not measured  {rate_name(key)}: {reason}")
    for note in report.notes:
        show_text(f"note: {note}")
    if report.saved:
        show_text("saved: roost plan uses these rates on this device from now on (roost profiles)")
    else:
        show_text("--save keeps them for roost plan")


def _row(report: ProbeReport, key: RateKey) -> tuple[str, ...]:
    plain = report.unmeasured[key]
    planned = (rate_value(key, plain.value), off_by(plain.spread, plain.down))
    rate = report.measured.get(key)
    if rate is None:
        return (rate_name(key), "–", "–", *planned, "–")
    return (
        rate_name(key), rate_value(key, rate.value), off_by(rate.spread), *planned, f"{report.ratio(key):.3g}",
    )  # fmt: skip
