"""Before an hour of denoising: the stage whose peak is least certain, tried once with made-up inputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from roost.api.measurements.learned import learn_activations
from roost.api.measurements.run_records import RehearsedRecord
from roost.api.plans.forecast import forecast_plan
from roost.api.runs.ready import ReadyPlan
from roost.errors import OutOfMemory, RoostError
from roost.facts.request import Workload
from roost.facts.stage import DENOISING, StageKey, stage_of, stage_text
from roost.option_spelling import option
from roost.plan import PlanDocument
from roost.plan.budget import late_components
from roost.planner.cost.estimate import Forecast
from roost.planner.placements import Placement, lossy_of
from roost.planner.rules.names import kind_of
from roost.trace import UseTrace

if TYPE_CHECKING:
    from roost.residency.hold.attach import Held

_log = logging.getLogger(__name__)

# A plan that surely fits is rehearsed too before a denoise that is predicted to take longer.
LONG_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """The call to make: of a use's component and method, of its form. ``activation_bytes`` is what it likely takes
    beside weights; ``recast`` names the dtype that the pipeline changes the weights to for it."""

    stage: StageKey
    method: str
    form: Mapping[str, Any]
    recast: str | None
    activation_bytes: int

    @property
    def text(self) -> str:
        return stage_text(self.stage.phase, self.stage.component)


def is_worth_rehearsing(plan: PlanDocument) -> bool:
    """Whether the plan may not fit though it was predicted, or an hour could be lost to what nobody foresaw.

    A plan that nothing was predicted for is not: what to call a stage with, and which to call, its dry run tells.
    """
    predicted = plan.predicted
    if predicted is None or predicted.guessed:
        return False
    denoise_s = sum(each.seconds for each in predicted.stages if each.phase in DENOISING)
    return plan.certainty == "likely" or denoise_s > LONG_S


def prepare_rehearsal(ready: ReadyPlan, workload: Workload, *, decodes: bool) -> Rehearsal | None:
    """What to rehearse before a run of ``workload``; None where nothing can be.

    The model is dry-run where no trace of it is kept. Raises RoostError, with the reason, where that fails. A run that
    doesn't ``decode`` may rehearse another stage.
    """
    plan = ready.plan
    again = forecast_plan(plan, str(ready.model_dir), workload, with_forms=True)
    if again is None:
        return None
    stage = _least_certain(again.forecast, again.placements, plan, decodes=decodes)
    return None if stage is None else _rehearsal_of(stage, again.forecast, again.placements)


def _least_certain(
    forecast: Forecast, placements: tuple[Placement, ...], plan: PlanDocument, *, decodes: bool
) -> StageKey | None:
    """The stage that may exceed what is there by most; where none may, the one with the widest interval."""
    likely, most = (forecast.timeline(placements, level).stages[0] for level in ("mid", "slow"))
    there_bytes = plan.budget.budget_bytes if forecast.model.backend == "emulated" else plan.budget.free_bytes

    def doubt(stage: StageKey) -> tuple[int, int, int]:
        high_bytes, mid_bytes = most[stage].peak_bytes, likely[stage].peak_bytes
        return max(0, high_bytes - there_bytes), high_bytes - mid_bytes, mid_bytes

    return max((each for each in likely if decodes or each.phase != "decode"), key=doubt, default=None)


def _rehearsal_of(stage: StageKey, forecast: Forecast, placements: tuple[Placement, ...]) -> Rehearsal | None:
    costs = forecast.costs("mid", lossy_of(placements))
    uses = [
        (cost.activation_bytes, use)
        for cost, use in zip(costs, forecast.trace.uses, strict=True)
        if _stage_of(use, forecast) == stage and use.form
    ]
    if not uses:
        return None
    activation_bytes, use = max(uses, key=lambda each: each[0])
    return Rehearsal(
        stage=stage,
        method=use.method,
        form=use.form or {},
        recast=use.compute_dtype if use.recast_bytes else None,
        activation_bytes=activation_bytes,
    )


def _stage_of(use: UseTrace, forecast: Forecast) -> StageKey:
    return stage_of(use.component, kind_of(forecast.components[use.component]), use.method)


def rehearse_run(
    held: Held, rehearsal: Rehearsal, plan: PlanDocument, workload: Workload, on_note: Callable[[str], None]
) -> RehearsedRecord | None:
    """Rehearses, and keeps what the activations took for the next plan; None where the call can't be made up.

    Masters that come late come now, and stay, where they fit beside those of every turn before their own: the decoder's
    mostly do. A denoiser's don't, and making them twice would take longer than the rehearsal; it is told then.
    Raises OutOfMemory, before anything was denoised, for a plan that memory is too short for.
    """
    from roost.residency.run.rehearsal import NotRehearsable, rehearse  # imported here: it brings torch

    stage = rehearsal.stage
    if _comes_too_late(plan, stage.component):
        on_note(f"not rehearsed: host memory has room for {stage.component} only once others were given back.")
        return None
    try:
        measured = rehearse(held, stage.component, rehearsal.method, rehearsal.form, rehearsal.recast)
    except NotRehearsable as error:
        on_note(f"not rehearsed: {error}.")
        return None
    except OutOfMemory as error:
        anyway = f"{option('rehearse', False)} runs it all the same."
        raise OutOfMemory(f"rehearsed before denoising, {error} Nothing is lost yet; {anyway}") from None
    # Beside the weights that were there: what leaves for it anyway is in neither.
    predicted_bytes = measured.peak_bytes - measured.activation_bytes + rehearsal.activation_bytes
    _log.info("rehearsed %s: %d bytes where %d were predicted", stage, measured.peak_bytes, predicted_bytes)
    if workload == plan.workload and "tiling" not in held.demotions.get(stage.component, {}):
        learn_activations(plan, stage, measured.activation_bytes)
    return RehearsedRecord(stage=rehearsal.text, predicted_bytes=predicted_bytes, measured_bytes=measured.peak_bytes)


def _comes_too_late(plan: PlanDocument, component: str) -> bool:
    """Whether host memory has no room for the component's masters before its turn."""
    turns = plan.budget.host_turns
    if component not in late_components(turns):
        return False
    before = [*takewhile(lambda turn: component not in turn.masters, turns)]
    own_bytes = turns[len(before)].masters[component]
    return max(turn.host_bytes for turn in before) + own_bytes > plan.machine.host.available_bytes


def prepared(
    ready: ReadyPlan, workload: Workload, *, decodes: bool, on_note: Callable[[str], None]
) -> Rehearsal | None:
    """What to rehearse, for a plan that is worth it; what keeps it from being rehearsed is told."""
    if not is_worth_rehearsing(ready.plan):
        return None
    try:
        return prepare_rehearsal(ready, workload, decodes=decodes)
    except RoostError as error:
        on_note(f"not rehearsed: {error}")
        return None
