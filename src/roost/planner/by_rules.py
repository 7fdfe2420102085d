"""``--policy rules``: from facts to a plan document by the rule table alone."""

from __future__ import annotations

from roost.plan.schema import PlanDocument
from roost.planner.cost.budget import judge
from roost.planner.documents.writer import document_of
from roost.planner.rules.case import Question
from roost.planner.ruling import ruling_on

__all__ = ["Question", "plan_by_rules"]

_BY_WEIGHTS = "the rules know nothing of activations; --policy search dry-runs the model and counts them."


def plan_by_rules(question: Question) -> PlanDocument:
    """The rule plan, fitting by weights or not: ``fits`` and the budget say by how much.

    Raises UsageError for options that contradict each other or name components that don't exist.
    """
    ruling = ruling_on(question)
    verdict = judge(ruling.placements, question.machine)
    return document_of(ruling, ruling.placements, verdict, warnings=(_BY_WEIGHTS,) if verdict.fits else ())
