"""``--policy rules``: from facts to a plan document by the rule table alone."""

from __future__ import annotations

from roost.plan.schema import PlanDocument
from roost.planner.documents.writer import document_of
from roost.planner.placements import place
from roost.planner.rules.case import Case, Question
from roost.planner.rules.roles import RoleView, view
from roost.planner.rules.selectors import check_selectors
from roost.planner.rules.table import apply_rules
from roost.planner.rules.typed import resolve

__all__ = ["Question", "case_of", "plan_by_rules"]

_BY_WEIGHTS = "the rules know nothing of activations; --policy search dry-runs the model and counts them."


def plan_by_rules(question: Question) -> PlanDocument:
    """The rule plan, fitting by weights or not: ``fits`` and the budget say by how much.

    Raises UsageError for options that contradict each other or name components that don't exist.
    """
    case, role = case_of(question)
    outcome = apply_rules(case)
    document = document_of(question, role, outcome, place(case, outcome.decisions))
    if not document.fits:
        return document
    return document.model_copy(update={"warnings": [*document.warnings, _BY_WEIGHTS]})


def case_of(question: Question) -> tuple[Case, RoleView]:
    """What the rules and the search look at, and the role's part of the model.

    Raises UsageError for options that contradict each other or name components that don't exist.
    """
    _check_options(question)
    role = view(question.inventory, question.profile, question.role)
    components = tuple(each for each in question.inventory.components if each.name in role.loads)
    case = Case(
        components=components,
        profile=question.profile,
        machine=question.machine,
        batch=question.workload.batch,
        choices=question.choices,
        explicit=resolve(question.choices, components),
    )
    return case, role


def _check_options(question: Question) -> None:
    names = [each.name for each in question.inventory.components]
    for choice in question.choices.sets:
        check_selectors([choice.selector], names, choice.option)
    selection = question.choices.layerwise_components or ()
    check_selectors(selection, names, f"--layerwise-offload-components {','.join(selection)}")
