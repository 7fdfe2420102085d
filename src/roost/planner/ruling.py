"""The rules applied to a question: what they looked at, what they decided, and the placements that follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from roost.errors import UsageError
from roost.facts.model import Component, RolePart
from roost.option_spelling import option
from roost.planner.placements import Placement, place
from roost.planner.rules.case import Case, Decision, Question
from roost.planner.rules.roles import view
from roost.planner.rules.selectors import check_selectors
from roost.planner.rules.table import Outcome, apply_rules
from roost.planner.rules.typed import resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """One question with all that the rules make of it."""

    question: Question
    role: RolePart
    case: Case
    outcome: Outcome
    placements: tuple[Placement, ...]


def ruling_on(question: Question) -> Ruling:
    """What the rules decide for the role's part of the model.

    Raises UsageError for options that contradict each other, suit no component or name ones that don't exist, and for a
    role that the model has nothing for.
    """
    _check_selectors(question)
    role = view(question.inventory, question.profile, question.role)
    if not role.loads:
        raise UsageError(f"{option('role', role.name)}: the model has no component for that role; plan another one.")
    components = tuple(each for each in question.inventory.components if each.name in role.loads)
    case = Case(
        components=components,
        profile=question.profile,
        machine=question.machine,
        batch=question.workload.batch,
        choices=question.choices,
        explicit=resolve(question.choices, components),
    )
    outcome = apply_rules(case)
    if question.inventory.source != "memory":  # a pipeline in memory has sharded its modules by itself
        _check_shards(components, outcome.decisions)
    return Ruling(question=question, role=role, case=case, outcome=outcome, placements=place(case, outcome.decisions))


def why_not_sharded(component: Component) -> str | None:
    """Why FSDP can't split the component's weights; None where it can."""
    packed = component.quantization or component.storage or (component.source is not None and component.source.own)
    if packed:
        return f"the weights of {component.name} are packed, and FSDP can't split them"
    if component.source is not None:
        return f"the weights of {component.name} come from a file of their own, and FSDP splits those of the model"
    return None


def _check_shards(components: Iterable[Component], decisions: Mapping[str, Decision]) -> None:
    for component in components:
        why_whole = why_not_sharded(component) if decisions[component.name].strategy == "fsdp" else None
        if why_whole is not None:
            raise UsageError(f"{why_whole}; plan it on one GPU with {option('fsdp', False)}.")


def _check_selectors(question: Question) -> None:
    names = [each.name for each in question.inventory.components]
    for choice in question.choices.sets:
        check_selectors([choice.selector], names, option("set", choice.text))
    selection = question.choices.layerwise_components or ()
    check_selectors(selection, names, option("layerwise_offload_components", ",".join(selection)))
