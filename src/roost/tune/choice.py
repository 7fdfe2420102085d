"""``plan --tune``: trials of the most promising placements decide, and the plan records what they measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from roost.facts.decider import Decider, decider_of, spelled
from roost.plan import ComponentPlan, PlanDocument
from roost.plan.results import Standing
from roost.plan.revision import revised
from roost.plan.trials import Measured, Rival, StepTimes
from roost.planner.by_search import plan_by_search
from roost.planner.rule_plan import predicted_rule_plan
from roost.planner.search_question import SearchQuestion
from roost.tune.results.disturbances import timing_warnings
from roost.tune.results.records import BenchResults, Candidate, Row
from roost.tune.trials.candidates import (
    RULE_PLAN,
    SEARCHED_PLAN,
    STRATEGIES,
    Field,
    list_candidates,
    placement_of,
    why_unfit,
)

_OTHERS = 3  # beside the searched plan and the rule plan


def searched_plan(asked: SearchQuestion) -> PlanDocument:
    """What prediction alone decides."""
    return plan_by_search(asked)


def tuning_field(asked: SearchQuestion, searched: PlanDocument) -> Field:
    """The searched plan, the rule plan, and the next best by prediction that leave what was typed as it is.

    The searched plan comes first: it wins ties, being the simplest of what is predicted to be as fast.
    """
    racing: list[Candidate] = []
    left_out: list[tuple[Candidate, str]] = []
    seen: dict[object, str] = {}
    for candidate in _wanted(asked, searched):
        assert candidate.plan is not None, "every candidate of Roost has one"
        same = seen.get(placement_of(candidate.plan))
        reason = why_unfit(candidate) if same is None else f"places everything as {same} does"
        if reason is not None:
            left_out.append((candidate, reason))
            continue
        seen[placement_of(candidate.plan)] = candidate.name
        if candidate.name in (SEARCHED_PLAN, RULE_PLAN) or len(racing) < _OTHERS + 2:
            racing.append(candidate)
    return Field(plain=None, racing=tuple(racing), left_out=tuple(left_out))


def _wanted(asked: SearchQuestion, searched: PlanDocument) -> Iterator[Candidate]:
    yield Candidate(name=SEARCHED_PLAN, strategy="search", plan=searched, predicted=searched.predicted)
    alike = asked.with_bits_of(searched)
    ruled = predicted_rule_plan(alike)
    yield Candidate(name=RULE_PLAN, strategy="rules", plan=ruled, predicted=ruled.predicted)
    if not searched.policy.choices:
        strategies = [each for each in STRATEGIES if each not in ("rules", "search")]
        yield from list_candidates(alike, strategies, searched=searched).racing


def tuned_plan(searched: PlanDocument, results: BenchResults, when: str) -> PlanDocument:
    """The winner's placements as the plan, with what was measured; the searched plan when nothing ran to its end.

    ``when`` is the time in UTC, as ISO 8601 with a Z.
    """
    won = next((row for row in results.rows if row.candidate.name == results.winner), None)
    if won is None or won.candidate.plan is None:
        failed = "; ".join(f"{row.candidate.name}: {row.result.reason}" for row in results.rows if row.rounds)
        lost = f"no trial ran to its end, so the prediction decides ({failed or 'there was no time for one'})."
        return revised(searched, warnings=[*searched.warnings, lost])
    plan, why = won.candidate.plan, _why(won, results)
    components = {name: _decided(each, searched.components[name], why) for name, each in plan.components.items()}
    return revised(
        plan,
        components=components,
        policy=searched.policy,
        alternatives=searched.alternatives,
        also=searched.also if won.candidate.name == SEARCHED_PLAN else [],
        measured=_measured(won, results, when),
        warnings=[*plan.warnings, *results.notes, *timing_warnings(results.samples)],
    )


def _decided(component: ComponentPlan, searched: ComponentPlan, why: str) -> ComponentPlan:
    """What was typed keeps its reason; the trials decided the rest."""
    if decider_of(searched.decided_by).typed:
        return revised(component, decided_by=searched.decided_by, why=searched.why)
    return revised(component, decided_by=spelled(Decider("trial")), why=why)


def _why(won: Row, results: BenchResults) -> str:
    name, standings = won.candidate.name, {each.name: each for each in results.standings}
    emulated = " on the emulated device" if results.device_kind == "emulated" else ""
    others = [each for each in standings.values() if each.ratio is not None and each.status in ("ok", "eliminated")]
    if not others:
        return f"{name} is the only candidate whose trials ran to their end{emulated}."
    ratios = ", ".join(_ratio(each) for each in sorted(others, key=lambda each: each.ratio or 0.0))
    return f"{name} won the trials{emulated}; the time of others beside it: {ratios}."


def _ratio(standing: Standing) -> str:
    error = "" if standing.ratio_error is None else f" ± {standing.ratio_error:.2f}"
    return f"{standing.name} {standing.ratio:.2f}{error} ×"


def _measured(won: Row, results: BenchResults, when: str) -> Measured:
    result, steps = won.result, won.result.step_seconds
    assert result.total_s is not None, "a winner ran to its end"
    standings = {each.name: each for each in results.standings}
    return Measured(
        source="trial",
        device_kind=results.device_kind,
        when=when,
        rounds=won.rounds,
        trial_steps=results.trial_steps,
        step_s=StepTimes(
            mean=statistics.fmean(steps), sd=statistics.stdev(steps) if len(steps) > 1 else None, n=len(steps)
        ),
        load_s=result.load_s,
        total_s=result.total_s,
        peak_bytes=result.peak_bytes,
        reserved_bytes=result.reserved_bytes,
        host_peak_bytes=result.host_peak_bytes,
        digest=result.digest,
        candidate=won.candidate.name,
        rivals=[_rival(row, standings.get(row.candidate.name)) for row in results.rows if row is not won],
    )


def _rival(row: Row, standing: Standing | None) -> Rival:
    valid = row.result.status in ("ok", "eliminated")
    return Rival(
        name=row.candidate.name,
        status=row.result.status,
        reason=row.result.reason or None,
        ratio=standing.ratio if standing and valid else None,
        ratio_error=standing.ratio_error if standing and valid else None,
    )
