"""The part of ``roost plan`` that lets trials decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roost.cli.screen import show_note
from roost.errors import RoostError, UsageError
from roost.units import format_seconds

if TYPE_CHECKING:
    from roost.api.options import PlanOptions
    from roost.plan import PlanDocument
    from roost.planner.search_plan import SearchQuestion
    from roost.tune.records import BenchResults

_TRIAL_STEPS = 5


def tune_plan(model: str, options: PlanOptions, seconds: float) -> PlanDocument:
    """The plan of ``model`` that won trials of ``seconds`` at most; the predicted one, with a note, where none can run.

    Raises UsageError for options that trials contradict.
    """
    from roost.api.learning import now
    from roost.api.options import searches
    from roost.api.planning import search_question
    from roost.tune.tuning import searched_plan, tuned_plan

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
    from roost.api.inspection import profile_of
    from roost.api.preflight import check_executable, check_runnable

    inventory, gpu = asked.question.inventory, asked.question.machine.gpu
    if not searched.fits:
        return "nothing fits, so there is nothing to try"
    if inventory.path is None and gpu.device_kind == "emulated":
        return "the model is known only by its name, and an emulated GPU needs its files"
    if gpu.source.startswith("profile:"):
        return f"trials need the GPU itself, and {gpu.name} is only described here"
    try:
        check_executable(searched)
        check_runnable(inventory, profile_of(inventory))
    except RoostError as error:
        return str(error).rstrip(".")
    return None


def _race(asked: SearchQuestion, searched: PlanDocument, seconds: float) -> BenchResults:
    from roost.api.tracing import configs_of
    from roost.cli.trials import run_trials
    from roost.tune.bench import BenchSettings
    from roost.tune.trials import world_of
    from roost.tune.tuning import tuning_field

    entrants = tuning_field(asked, searched)
    count = len(entrants.racing)
    what = f"trials of {count} candidates" if count > 1 else "trials of the one candidate that fits"
    show_note(f"--tune: {what}, in {format_seconds(seconds)} or less.")
    with configs_of(asked.question.inventory) as model_dir:
        world = world_of(asked, entrants, model_dir, _TRIAL_STEPS)
        return run_trials(asked, entrants, world, BenchSettings(max_seconds=seconds))
