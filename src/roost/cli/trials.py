"""Trials as the commands run them: with a live line, a journal that takes up an interrupted one, and a memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roost.cli.screen import show_note

if TYPE_CHECKING:
    from roost.planner.search_plan import SearchQuestion
    from roost.tune.bench import BenchSettings
    from roost.tune.candidates import Field
    from roost.tune.records import BenchResults
    from roost.tune.trials import TrialWorld


def run_trials(
    asked: SearchQuestion, entrants: Field, world: TrialWorld, settings: BenchSettings, *, fresh: bool = False
) -> BenchResults:
    """Measures the field; what ran to its end teaches the next prediction. ``fresh`` forgets an interrupted bench."""
    from roost.cli.bench_view import LiveLine
    from roost.tune.bench import Bench, key_facts
    from roost.tune.journal import Journal, journal_key, journal_path, only_bench
    from roost.tune.trials import Trials

    key = journal_key(key_facts(asked, world))
    emulated = world.device_kind == "emulated"
    with only_bench(asked.question.machine.gpu), Trials(world) as trials, LiveLine(emulated=emulated) as live:
        journal = Journal(journal_path(key), key, fresh=fresh)
        if journal.trials:
            show_note(f"trials known from an interrupted bench: {journal.trials}; roost bench --fresh forgets them.")
        try:
            results = Bench(asked, entrants, trials, journal, live).run(settings)
        except KeyboardInterrupt:
            show_note(f"trials kept: {journal.trials}; the same command goes on from there.")
            raise
    _learn(results, world.link_bytes_per_s)
    return results


def _learn(results: BenchResults, link_bytes_per_s: float | None) -> None:
    """Keeps what the best candidates measured for the next plan, the winner's last: the newest counts."""
    from roost.api.learning import remember
    from roost.tune.figures import run_figures

    whole = results.trial_steps == results.workload.steps_run
    valid = [row for row in results.rows if row.result.status == "ok" and row.candidate.peer is None]
    for row in sorted(valid, key=lambda row: row.candidate.name == results.winner):
        if row.candidate.plan is not None and row.result.total_s is not None:
            figures = run_figures(row, results.device_kind, whole=whole)
            remember(row.candidate.plan, figures, h2d_bytes_per_s=link_bytes_per_s)
