"""The plan document's record of what a prediction was worked out from, and the cost model back from it."""

from __future__ import annotations

from roost.facts.rates import RateKey, known_rates
from roost.facts.stage import StageKey, stage_of, stage_text
from roost.plan.figures import Arithmetic, StageWork
from roost.planner.cost.costs import CostModel
from roost.planner.cost.estimate import Forecast
from roost.planner.cost.rates import SINGLE_DTYPES, Rates
from roost.planner.cost.simulator import StageTimes
from roost.planner.placements import Placement
from roost.planner.rules.names import kind_of

_MOVED_WHOLE = ("component-offload", "snapshot-offload")


def arithmetic_record(forecast: Forecast, placements: tuple[Placement, ...]) -> Arithmetic:
    """The rates and factors of the forecast, and the work of every stage under these placements."""
    model = forecast.model
    schedule = forecast.schedule(placements)
    own_bytes = {name: weights.active_bytes for name, weights in schedule.weights.items()}
    activation_bytes: dict[StageKey, int] = {}
    for use in schedule.uses:
        activation_bytes[use.stage] = max(activation_bytes.get(use.stage, 0), use.activation_bytes)
    stages = forecast.timeline(placements).stages[0]
    placed = {each.component.name: each for each in placements}
    traced = {key: _traced(forecast, key, placed[key.component]) for key in stages}
    return Arithmetic(
        backend=model.backend,
        context_bytes=schedule.context_bytes,
        rates={key.value: rate for key, rate in model.rates.by_key.items()},
        kappas=dict(model.kappas),
        single_dtypes=sorted(model.single_dtypes),
        attention=model.attention,
        denoiser_attention=model.denoiser_attention,
        tiers={each.component.name: each.tier for each in placements if each.strategy in _MOVED_WHOLE},
        stages=[
            _work(key, stage, own_bytes[key.component], activation_bytes[key], traced[key])
            for key, stage in stages.items()
        ],
    )


def _traced(forecast: Forecast, stage: StageKey, placement: Placement) -> tuple[int, float]:
    """The stage's largest traced activations and the factor they are taken times."""
    component, trace = placement.component, forecast.trace
    found = [(0, 1.0)]
    for index, use in enumerate(trace.uses):
        if stage_of(use.component, kind_of(component), use.method) == stage:
            run = (trace.variant(index, "tiled") if placement.tiling else None) or use
            found.append((run.activation_bytes.peak_bytes, forecast.model.kappa(component, run).mid))
    return max(found)


def _work(
    key: StageKey, stage: StageTimes, own_bytes: int, activation_bytes: int, traced: tuple[int, float]
) -> StageWork:
    steady = stage.steady
    return StageWork(
        name=stage_text(key.phase, key.component),
        component=key.component,
        phase=key.phase,
        passes=stage.uses,
        compute_s=stage.compute_s,
        copy_s=stage.copy_s,
        wait_s=stage.stall_s,
        h2d_bytes=stage.h2d_bytes,
        d2h_bytes=stage.d2h_bytes,
        own_bytes=own_bytes,
        activation_bytes=activation_bytes,
        pass_s=steady.seconds,
        pass_compute_s=steady.compute_s,
        pass_copy_s=steady.copy_s,
        pass_h2d_bytes=steady.h2d_bytes,
        traced_bytes=traced[0],
        kappa=traced[1],
    )


def cost_model_of(record: Arithmetic) -> CostModel | None:
    """The cost model that made the record; None when it lacks a rate, as one from another version may."""
    rates = known_rates(record.rates)
    if len(rates) < len(RateKey):
        return None
    return CostModel(
        rates=Rates(by_key=rates),
        backend=record.backend,
        kappas=record.kappas,
        single_dtypes=SINGLE_DTYPES if record.single_dtypes is None else frozenset(record.single_dtypes),
        attention=record.attention,
        denoiser_attention=record.denoiser_attention,
    )
