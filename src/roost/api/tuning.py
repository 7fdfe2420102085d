"""A plan that timed trials decide: what the search proposes is raced on the GPU that is here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from roost.api.measurements.learned import now
from roost.api.models.inspect import profile_of
from roost.api.plans.plan import search_question
from roost.api.plans.preflight import check_executable, check_runnable
from roost.api.plans.ranks import sharded_components
from roost.api.requests.option_sets import TunedPlanOptions
from roost.api.requests.options import searches
from roost.api.requests.python_options import options_of
from roost.api.requests.run_option_sets import RaceOptions
from roost.api.trials import run_trials
from roost.errors import RoostError, UsageError
from roost.option_spelling import option
from roost.plan import PlanDocument
from roost.planner.search_question import SearchQuestion
from roost.tune.choice import searched_plan, tuned_plan, tuning_field
from roost.tune.results.records import BenchResults
from roost.tune.trials.recorded import BenchWatcher


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedPlan:
    """A plan, and the trials that decided it; without ``results`` the prediction did, and ``why_not`` says why."""

    plan: PlanDocument
    results: BenchResults | None = None
    why_not: str | None = None


def tune_plan(model: str | Path, watcher: BenchWatcher | None = None, **options: object) -> TunedPlan:
    """The plan of ``model`` whose placements won timed trials: the searched plan, the rules' plan and the next best.

    ``model`` is a directory, a hub id or a name. ``options`` are those of ``make_plan``, and ``tune_seconds``, the
    most that all trials may take, 180. ``watcher`` hears of the trials; derive it from ``roost.BenchWatcher``. Each
    trial is a process of its own. Where none can run, the plan is the predicted one.

    Returns the plan, which may not fit (``plan.fits``), the results of all candidates, and where there are none the
    reason. Raises UsageError for options that trials contradict, InvalidFile for a model that can't be read, and
    RoostError when another bench is on the GPU.

        tuned = roost.tune_plan("./FLUX.1-dev", vram="12GiB", tune_seconds=300)
        pipeline = roost.load_pipeline(tuned.plan)
    """
    return tune_model(model, options_of(TunedPlanOptions, options, "tune_plan"), watcher)


def tune_model(model: str | Path, options: TunedPlanOptions, watcher: BenchWatcher | None = None) -> TunedPlan:
    """The typed spelling of ``tune_plan``."""
    seconds = options.tune_seconds
    if not searches(options):
        raise UsageError(f"trials try what the search proposes; leave {option('policy', 'rules')} out.")
    if options.objective == "memory":
        raise UsageError(f"trials decide by seconds; leave {option('objective', 'memory')} out.")
    if not 1 <= seconds < 2**31:
        raise UsageError(f"{option('tune_seconds', seconds)} is out of range; give a number from 1.")
    asked = replace(search_question(model, options), gives_back=True)
    searched = searched_plan(asked)
    why_not = _why_not(asked, searched)
    if why_not is not None:
        return TunedPlan(plan=searched, why_not=why_not)
    results = run_trials(asked, tuning_field(asked, searched), RaceOptions(max_seconds=seconds), watcher)
    return TunedPlan(plan=tuned_plan(searched, results, now()), results=results)


def _why_not(asked: SearchQuestion, searched: PlanDocument) -> str | None:
    """Why nothing can be tried here; None when it can."""
    inventory, gpu = asked.question.inventory, asked.question.machine.gpu
    if not searched.fits:
        return "nothing fits, so there is nothing to try"
    if inventory.source == "name" and gpu.device_kind == "emulated":
        return "the model is known only by its name, and an emulated GPU needs its files"
    if gpu.named:
        return f"trials need the GPU itself, and {gpu.name} is only described here"
    sharded = sharded_components(searched)
    if sharded:
        return f"{', '.join(sharded)} would be sharded, which needs torchrun, and trials are processes alone"
    try:
        check_executable(searched)
        check_runnable(inventory, profile_of(inventory))
    except RoostError as error:
        return str(error).rstrip(".")
    return None
