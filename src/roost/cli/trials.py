"""Trials as the commands run them, for ``roost bench`` and ``roost plan --tune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roost.cli.screen import show_note
from roost.errors import RoostError, UsageError
from roost.units import format_seconds

if TYPE_CHECKING:
    from roost.api.requests.options import PlanOptions
    from roost.plan import PlanDocument
    from roost.planner.by_search import SearchQuestion
    from roost.tune.bench import BenchSettings
    from roost.tune.results.records import BenchResults
    from roost.tune.trials.candidates import Field
    from roost.tune.trials.runner import TrialWorld


_TRIAL_STEPS = 5


def tune_plan(model: str, options: PlanOptions, seconds: float) -> PlanDocument:
    """The plan of ``model`` that won trials of ``seconds`` at most; the predicted one, with a note, where none can run.

    Raises UsageError for options that trials contradict.
    """
    from roost.api.measurements.learned import now
    from roost.api.plans.plan import search_question
    from roost.api.requests.options import searches
    from roost.tune.choice import searched_plan, tuned_plan

    if not searches(options):
        raise UsageError("--tune tries what the search proposes; leave --policy rules out.")
    if options.objective == "memory":
        raise UsageError("--tune decides by seconds; leave --objective memory out.")
    if not 1 <= seconds < 2**31:
        raise UsageError(f"--tune-seconds {seconds:g} is out of range; give a number from 1.")
    asked = search_question(model, options)
    searched = searched_plan(asked)
    reason = _why_not(asked, searched)
    if reason is not None:
        show_note(f"--tune: {reason}; the prediction decides.")
        return searched
    return tuned_plan(searched, _race(asked, searched, seconds), now())


def _why_not(asked: SearchQuestion, searched: PlanDocument) -> str | None:
    """Why nothing can be tried here; None when it can."""
    from roost.api.models.inspect import profile_of
    from roost.api.plans.preflight import check_executable, check_runnable

    inventory, gpu = asked.question.inventory, asked.question.machine.gpu
    if not searched.fits:
        return "nothing fits, so there is nothing to try"
    if inventory.source == "name" and gpu.device_kind == "emulated":
        return "the model is known only by its name, and an emulated GPU needs its files"
    if gpu.named:
        return f"trials need the GPU itself, and {gpu.name} is only described here"
    try:
        check_executable(searched)
        check_runnable(inventory, profile_of(inventory))
    except RoostError as error:
        return str(error).rstrip(".")
    return None


def _race(asked: SearchQuestion, searched: PlanDocument, seconds: float) -> BenchResults:
    from roost.api.models.traces import configs_of
    from roost.tune.bench import BenchSettings
    from roost.tune.choice import tuning_field
    from roost.tune.trials.runner import world_of

    entrants = tuning_field(asked, searched)
    count = len(entrants.racing)
    what = f"trials of {count} candidates" if count > 1 else "trials of the one candidate that fits"
    show_note(f"--tune: {what}, in {format_seconds(seconds)} or less.")
    with configs_of(asked.question.inventory) as model_dir:
        world = world_of(asked, entrants, model_dir, _TRIAL_STEPS)
        return run_trials(asked, entrants, world, BenchSettings(max_seconds=seconds))


# Trials as the commands run them: with a live line, a journal that takes up an interrupted one, and a memory.


def run_trials(
    asked: SearchQuestion, entrants: Field, world: TrialWorld, settings: BenchSettings, *, fresh: bool = False
) -> BenchResults:
    """Measures the field; what ran to its end teaches the next prediction. ``fresh`` forgets an interrupted bench."""
    from roost.cli.views.bench import LiveLine
    from roost.tune.bench import Bench, key_facts
    from roost.tune.trials.journal import Journal, journal_key, journal_path, only_bench
    from roost.tune.trials.runner import Trials

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
    from roost.api.measurements.learned import remember
    from roost.tune.results.figures import run_figures

    whole = results.trial_steps == results.workload.steps_run
    valid = [row for row in results.rows if row.result.status == "ok" and row.candidate.peer is None]
    for row in sorted(valid, key=lambda row: row.candidate.name == results.winner):
        if row.candidate.plan is not None and row.result.total_s is not None:
            figures = run_figures(row, results.device_kind, whole=whole)
            remember(row.candidate.plan, figures, h2d_bytes_per_s=link_bytes_per_s)
