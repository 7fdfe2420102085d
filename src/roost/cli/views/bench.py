"""What ``roost bench`` shows: a line that lives while trials run, then each candidate and who is faster than whom."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from operator import itemgetter
from types import TracebackType

from rich.console import Console
from rich.status import Status as LiveStatus
from rich.text import Text

from roost.api.requests.request import steps_text
from roost.cli.screen import clean, show_folded, show_note, show_text
from roost.facts.machine import DeviceKind
from roost.plan.results import Standing, TrialResult
from roost.tune.race.race import RoundReport
from roost.tune.results.disturbances import timing_warnings
from roost.tune.results.records import BenchResults, Row
from roost.tune.trials.messages import Message, Phase, StepTook
from roost.tune.trials.recorded import BenchWatcher
from roost.units import format_bytes, format_measured, format_seconds

_LABEL = 12  # characters before a figure
_MORE = 1.02  # a later peak above the first by less says nothing


class LiveLine(BenchWatcher):
    """One line on a terminal's stderr that says what runs, or a line a round elsewhere; a context manager.

    Pass it to a bench as its watcher. With ``tunes`` it says what ``plan --tune`` is about to try.
    """

    def __init__(self, *, tunes: bool = False) -> None:
        self._tunes, self._mark = tunes, ""
        self._round, self._best = 0, ""
        self._live: LiveStatus | None = None

    def __enter__(self) -> LiveLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def on_field(self, candidates: int, seconds: float) -> None:
        """What is raced, and for how long."""
        what = f"trials of {candidates} candidates" if candidates > 1 else "trials of the one candidate that fits"
        if self._tunes:
            show_note(f"--tune: {what}, in {format_seconds(seconds)} or less.")

    def on_begin(self, device_kind: DeviceKind, known: int) -> None:
        """Trials begin; figures of an emulated device are said to be so."""
        self._mark = " (emulated)" if device_kind == "emulated" else ""
        if sys.stderr.isatty():
            self._live = LiveStatus("", console=Console(stderr=True))
            self._live.start()
        if known:
            show_note(f"trials known from an interrupted bench: {known}; roost bench --fresh forgets them.")

    def on_interrupt(self, kept: int) -> None:
        """What an interrupted bench leaves."""
        show_note(f"trials kept: {kept}; the same command goes on from there.")

    def on_expected(self, seconds: float, candidates: int) -> None:
        """How long all of it will take, at most."""
        show_note(
            f"{candidates} candidate{'s' if candidates > 1 else ''}, up to {format_seconds(float(f'{seconds:.2g}'))}"
        )

    def on_shortage(self, reached: int, candidates: int, seconds: float) -> None:
        """Time is too short for all of them."""
        left = format_seconds(float(f"{seconds:.2g}"))
        show_note(f"{left} hold trials of about {reached} of the {candidates}: the best predicted come first")

    def on_trial(self, name: str, round: int) -> None:
        """A trial of ``name`` begins; round 0 is the reference."""
        self._round = round
        self._say(name, "starts")

    def on_message(self, name: str, message: Message) -> None:
        """The trial that runs says what it does, or how long a step took."""
        if isinstance(message, Phase):
            self._say(name, message.phase)
        elif isinstance(message, StepTook):
            self._say(name, f"step {format_measured(message.seconds, figures=3)}{self._mark}")

    def on_result(self, name: str, result: TrialResult) -> None:
        """A trial is over; what failed is said at once."""
        if result.status not in ("ok", "eliminated"):
            show_note(f"{name}: {result.status}: {result.reason}")

    def on_round(self, report: RoundReport) -> None:
        """A round is over."""
        self._best = ""
        if report.best is not None and report.best_step_s is not None:
            self._best = f" · best: {report.best}, {format_measured(report.best_step_s, figures=3)}{self._mark}"
        if self._live is None:
            show_note(f"round {report.round}: {len(report.racing)} left in the race{self._best}")

    def _say(self, name: str, what: str) -> None:
        if self._live:
            where = f"round {self._round} · " if self._round else ""
            line = f"{where}{name}: {what}{self._best}"
            shown = Text(clean(line))
            shown.truncate(self._live.console.width - 2, overflow="ellipsis")  # beside the spinner
            self._live.update(shown)


def show_results(results: BenchResults) -> None:
    """Every candidate, the fastest first and those that did not run last; then the summary and warnings."""
    _show_head(results)
    standings = {each.name: each for each in results.standings}
    rows = [(row, standings.get(row.candidate.name)) for row in results.rows]
    ran = [(row, each, each.mean_s) for row, each in rows if each and each.mean_s is not None and _valid(row)]
    for row, standing, mean_s in sorted(ran, key=itemgetter(2)):
        _show_row(row, standing, mean_s, won=row.candidate.name == results.winner)
    names = {row.candidate.name for row, _, _ in ran}
    _show_failures([row for row in results.rows if row.candidate.name not in names])
    _show_summary(results)
    for note in results.notes:
        show_folded(f"note: {note}")
    for warning in timing_warnings(results.samples):
        show_folded(f"warning: {warning}")


def _valid(row: Row) -> bool:
    return row.result.status in ("ok", "eliminated")


def _show_head(results: BenchResults) -> None:
    workload, machine = results.workload, results.machine
    frames = f" × {workload.frames} frames" if workload.frames else ""
    show_text(results.model)
    steps = f"{steps_text(workload)}, {results.trial_steps} of them run"
    show_text(f"{workload.width}×{workload.height}{frames}, {steps}")
    where = "an emulated device: no figure here is a GPU's" if results.device_kind == "emulated" else machine.gpu.name
    show_text(f"on {where}, budget {format_bytes(machine.budget_bytes)}")
    show_text("a step counts with its share of the stages around the denoising")


def _show_row(row: Row, standing: Standing, mean_s: float, *, won: bool) -> None:
    result, predicted = row.result, row.candidate.predicted
    show_text()
    show_text(f"{row.candidate.name}{' · the winner' if won else ''}")
    spread = "" if standing.sd_s is None else f" ± {format_measured(standing.sd_s, like=mean_s)}"
    least, most = (format_measured(each, like=mean_s) for each in (min(standing.rounds_s), max(standing.rounds_s)))
    count = len(standing.rounds_s)
    rounds = f"{count} round{'s' if count > 1 else ''}"
    show_text(_columns("step", f"{format_measured(mean_s)}{spread}", f"{least} … {most}", rounds))
    if result.total_s is not None:
        beside = "" if predicted is None else f"predicted {_times(predicted.next_s.mid, result.total_s)}"
        show_text(_columns("generation", format_seconds(result.total_s), beside))
    if result.peak_bytes is not None:
        beside = "" if predicted is None else f"predicted {format_bytes(predicted.peak_bytes.mid)}"
        show_text(_columns("VRAM", format_bytes(result.peak_bytes), beside))
        if result.later_peak_bytes is not None and result.later_peak_bytes > _MORE * result.peak_bytes:
            show_text(_columns("later", format_bytes(result.later_peak_bytes), "with what stays where there is room"))
    if result.host_peak_bytes is not None:
        pinned = "" if result.pinned_bytes is None else f"{format_bytes(result.pinned_bytes)} pinned"
        show_text(_columns("host", format_bytes(result.host_peak_bytes), pinned))
    if standing.status == "eliminated" and standing.reason:
        show_folded(f"{'out':<{_LABEL}}{standing.reason}", indent="  ", hanging=_LABEL)


def _times(predicted_s: float, measured_s: float) -> str:
    off = predicted_s / measured_s - 1
    return f"{format_seconds(predicted_s)} ({abs(off):.0%} {'over' if off > 0 else 'under'})"


def _columns(label: str, first: str, *others: str) -> str:
    return f"  {label:<{_LABEL}}{first:<24}{'   '.join(each for each in others if each)}".rstrip()


def _show_failures(rows: Sequence[Row]) -> None:
    """Together where the reason is the same: what can't fit at all fits in no streaming."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        reason = f"{row.result.status}: {row.result.reason or 'no reason is known'}"
        reasons.setdefault(reason, []).append(row.candidate.name)
    if reasons:
        show_text()
    for reason, names in reasons.items():
        show_folded(f"{', '.join(names)}: {reason}")


def _show_summary(results: BenchResults) -> None:
    show_text()
    show_text("Summary (emulated)" if results.device_kind == "emulated" else "Summary")
    if results.winner is None:
        show_text("  no candidate ran to its end, so nobody won")
        return
    rivals = _rivals(results)
    show_text(f"  {results.winner} ran" if rivals else f"  {results.winner} is the only one that ran")
    for rival, ratio in rivals:
        factor = f"{ratio:.2f}" if rival.ratio_error is None else f"{ratio:.2f} ± {rival.ratio_error:.2f}"
        show_text(f"  {factor:>13} × {'faster than' if ratio >= 1 else 'as fast as'} {rival.name}")
    if results.reference is not None:
        show_folded(f"every output that counts is bit for bit that of {results.reference}", indent="  ")


def _rivals(results: BenchResults) -> list[tuple[Standing, float]]:
    """Who else ran, with the winner's lead, the closest first."""
    valid = {row.candidate.name for row in results.rows if _valid(row)}
    found = [(each, each.ratio) for each in results.standings if each.ratio is not None and each.name in valid]
    return sorted(found, key=itemgetter(1))
