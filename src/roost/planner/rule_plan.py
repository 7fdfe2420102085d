"""The rule plan with its prediction: what the search compares with, as a document that can be tried."""

from __future__ import annotations

from roost.plan.schema import PlanDocument
from roost.planner.arithmetic import arithmetic_record
from roost.planner.document import document_of
from roost.planner.estimate import predict
from roost.planner.placements import place
from roost.planner.policy import case_of
from roost.planner.records import predicted_record, trace_record
from roost.planner.rules import apply_rules
from roost.planner.search_plan import SearchQuestion, forecast_of


def predicted_rule_plan(asked: SearchQuestion) -> PlanDocument:
    """What the rules decide for the question, with what that would take.

    ``fits`` speaks of weights alone, as in every rule plan; whether activations fit too, ``predicted`` says.
    """
    case, role = case_of(asked.question)
    outcome = apply_rules(case)
    placements = place(case, outcome.decisions)
    forecast = forecast_of(asked, case)
    return document_of(asked.question, role, outcome, placements).model_copy(
        update={
            "trace": trace_record(asked.trace),
            "predicted": predicted_record(predict(forecast, placements)),
            "arithmetic": arithmetic_record(forecast, placements),
        }
    )
