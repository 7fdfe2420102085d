"""Timed trials of a field on the GPU that is here; the next plan learns from them."""

from __future__ import annotations

from roost.api.measurements.learned import remember
from roost.api.models.traces import configs_of
from roost.api.requests.run_option_sets import RaceOptions
from roost.planner.search_question import SearchQuestion
from roost.tune.bench import BenchSettings, measure_field
from roost.tune.results.figures import run_figures
from roost.tune.results.records import BenchResults
from roost.tune.trials.candidates import Field
from roost.tune.trials.recorded import BenchWatcher
from roost.tune.trials.runner import world_of


def run_trials(
    asked: SearchQuestion,
    entrants: Field,
    race: RaceOptions,
    watcher: BenchWatcher | None = None,
    link_bytes_per_s: float | None = None,
) -> BenchResults:
    """Measures the field; what ran to its end teaches the next prediction."""
    watcher = watcher or BenchWatcher()
    settings = BenchSettings(rounds=race.rounds, max_seconds=race.max_seconds, fresh=race.fresh)
    watcher.on_field(len(entrants.racing), race.max_seconds)
    with configs_of(asked.question.inventory) as model_dir:
        world = world_of(asked, entrants, model_dir, race.trial_steps, link_bytes_per_s)
        results = measure_field(asked, entrants, world, settings, watcher)
    _learn(results, link_bytes_per_s)
    return results


def _learn(results: BenchResults, link_bytes_per_s: float | None) -> None:
    """Keeps what the best candidates measured for the next plan, the winner's last: the newest counts."""
    whole = results.trial_steps == results.workload.steps_run
    valid = [row for row in results.rows if row.result.status == "ok" and row.candidate.peer is None]
    for row in sorted(valid, key=lambda row: row.candidate.name == results.winner):
        if row.candidate.plan is not None and row.result.total_s is not None:
            figures = run_figures(row, results.device_kind, whole=whole)
            remember(row.candidate.plan, figures, h2d_bytes_per_s=link_bytes_per_s)
