"""How many prompts share a call: the largest group that surely fits and has the fewest predicted seconds an output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from roost.api.plans.forecast import forecast_plan
from roost.api.plans.plan import search_question
from roost.api.requests.known_values import AUTO
from roost.api.requests.option_sets import PlanOptions
from roost.api.requests.options import searches
from roost.api.requests.request import RunRequest
from roost.api.runs.ready import workload_of_run
from roost.errors import DryRunError, UsageError
from roost.facts.model import Inventory
from roost.facts.request import Workload
from roost.option_spelling import option
from roost.pipelines.signatures import BATCH, call_parameters, name_among
from roost.plan import PlanDocument
from roost.planner.by_search import plan_by_search
from roost.planner.cost.estimate import predict, surely_fits
from roost.planner.rules.names import kind_of
from roost.trace import ActivationBytes, Totals, Trace, UseTrace

MOST = 64  # each size is a dry run of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupChoice:
    """The group that was taken, and the predicted seconds an output of each that surely fits; none where none does.

    ``too_large`` is the first that may not fit; None where all that were asked about do.
    """

    size: int
    output_s: Mapping[int, float]
    too_large: int | None


def group_for_plan(plan: PlanDocument, request: RunRequest, model: str | None) -> GroupChoice:
    """The group for a run of ``plan`` as it is placed, by its own rates and factors; ``model`` is another directory.

    Raises UsageError for a plan that has none, for one whose workers differ, for a model that can't be dry-run, and for
    a pipeline that no prompts can share.
    """
    if plan.worker_plans:
        raise UsageError(
            f"{option('batch', AUTO)} compares predictions of one worker's plan, and this plan's workers differ; give a"
            " number."
        )
    _check_takes_groups(plan.model.pipeline)

    def output_s(size: int) -> float | None:
        return _output_s(plan, workload_of_run(plan, grouped(request, size)), model)

    return _choose(request.count, output_s)


def group_for_model(model: str, options: PlanOptions, request: RunRequest) -> GroupChoice:
    """The group for a run of a model that is planned for it. Raises as ``group_for_plan`` and planning do."""
    if not searches(options):
        raise UsageError(f"{option('batch', AUTO)} compares seconds, which the rules don't predict; give a number.")

    def output_s(size: int) -> float | None:
        asked = search_question(model, replace(options, batch=size))
        _check_takes_groups(asked.question.inventory.pipeline)
        plan = plan_by_search(replace(asked, seek_remedies=False))
        return _output_s(plan, plan.workload, None) if plan.fits else None

    return _choose(request.count, output_s)


def grouped(request: RunRequest, size: int) -> RunRequest:
    """The request in groups that were predicted to fit."""
    return replace(request, group=size, group_foreseen=True)


def _choose(count: int, output_s: Callable[[int], float | None]) -> GroupChoice:
    found: dict[int, float] = {}
    for size in _sizes(count):
        seconds = output_s(size)
        if seconds is None:
            return GroupChoice(size=_best(found), output_s=found, too_large=size)
        found[size] = seconds
    return GroupChoice(size=_best(found), output_s=found, too_large=None)


def _sizes(count: int) -> Iterator[int]:
    size = 1
    while size <= min(count, MOST):
        yield size
        size *= 2


def _best(output_s: Mapping[int, float]) -> int:
    return min(output_s, key=lambda size: (output_s[size], -size), default=1)


def _output_s(plan: PlanDocument, workload: Workload, model: str | None) -> float | None:
    """Predicted seconds of a later call for each of its outputs; None where it may not fit."""

    def with_texts(trace: Trace, inventory: Inventory) -> Trace:
        encoders = {each.name for each in inventory.components if kind_of(each) == "text_encoder"}
        return _with_texts(trace, encoders, workload.batch) if _repeats_a_text(plan.model.pipeline) else trace

    try:
        again = forecast_plan(plan, model, workload, change=with_texts)
    except DryRunError as error:
        raise UsageError(
            f"{option('batch', AUTO)} compares predictions, and there is no dry run ({error}); give a number."
        ) from None
    if again is None:
        raise UsageError(f"{option('batch', AUTO)} compares predictions, and this plan has none; give a number.")
    predicted = predict(again.forecast, again.placements)
    return predicted.next_s.mid / workload.batch if surely_fits(again.forecast, predicted) else None


def _with_texts(trace: Trace, encoders: set[str], count: int) -> Trace:
    """The trace with ``count`` texts in each of the encoders' calls, where one was dry-run for all outputs."""
    return replace(
        trace, uses=tuple(_times(each, count) if each.component in encoders else each for each in trace.uses)
    )


def _times(use: UseTrace, count: int) -> UseTrace:
    activations = use.activation_bytes
    return replace(
        use,
        totals=_work_times(use.totals, count),
        activation_bytes=ActivationBytes(
            before_blocks=activations.before_blocks * count,
            in_blocks=activations.in_blocks * count,
            after_blocks=activations.after_blocks * count,
        ),
        input_bytes=use.input_bytes * count,
        output_bytes=use.output_bytes * count,
        blocks=tuple(
            replace(each, totals=_work_times(each.totals, count), activation_bytes=each.activation_bytes * count)
            for each in use.blocks
        ),
    )


def _work_times(totals: Totals, count: int) -> Totals:
    """The work of a larger batch: no more kernels, and bytes of weights counted with the rest."""
    return {name: replace(each, flops=each.flops * count, bytes=each.bytes * count) for name, each in totals.items()}


def _repeats_a_text(pipeline: str) -> bool:
    """Whether a dry run of several outputs has one text, whose embedding the pipeline repeats."""
    from roost.pipelines.classes import pipeline_class  # imported here: it brings torch

    return name_among(BATCH, call_parameters(pipeline_class(pipeline))) is not None


def _check_takes_groups(pipeline: str | None) -> None:
    from roost.pipelines.classes import pipeline_class  # imported here: these bring torch
    from roost.residency.run.calls import check_takes_groups

    if pipeline is not None:
        check_takes_groups(pipeline_class(pipeline))
