"""Streaming below the block: components whose layers come in one by one, as their blocks do else."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from roost.errors import PlanMismatch, UsageError
from roost.facts.model import Component, Inventory, Kind, Stack
from roost.facts.request import TIERS
from roost.planner.rules.case import Question
from roost.planner.rules.names import group_of, kind_of
from roost.planner.rules.typed import Wish, resolve

_KINDS: tuple[Kind, ...] = ("dit", "text_encoder", "image_encoder")  # others run their blocks in many small calls
_COUNTED = frozenset(("resident_blocks", "resident_policy", "prefetch", "hold", *TIERS))  # parameters that count blocks


def at_leaf_level(inventory: Inventory, names: Collection[str]) -> Inventory:
    """The inventory in which these components stream by layers, where they can."""
    components = tuple(
        replace(each, units=each.leaves, leaves=()) if each.name in names and each.leaves else each
        for each in inventory.components
    )
    return replace(inventory, components=components)


def at_typed_level(question: Question) -> Question:
    """The question with what was typed to stream below its blocks. Raises UsageError for what has no such layers."""
    typed = {name: wish for name, wish in _wishes(question).items() if wish.parameters.get("leaf_level")}
    for each in question.inventory.components:
        if each.name in typed and (kind_of(each) not in _KINDS or not each.leaves):
            raise UsageError(
                f"{typed[each.name].typed}: component {each.name!r} can't stream below its blocks; set leaf_level on"
                " denoisers and encoders whose blocks share their layers."
            )
    return replace(question, inventory=at_leaf_level(question.inventory, typed)) if typed else question


def open_to_leaf_level(question: Question) -> frozenset[str]:
    """The components that can stream below their blocks and may: nobody typed in blocks how they are to stream."""
    wishes = _wishes(question)
    return frozenset(
        each.name
        for each in question.inventory.components
        if kind_of(each) in _KINDS
        and each.leaves
        and _is_open(wishes.get(each.name))
        and not _has_prefetch(question, each)
    )


def with_leaves(component: Component, leaves: Mapping[str, Sequence[str]]) -> Component:
    """A component at leaf level with just these leaves of its stacks, by the stack's name.

    Raises PlanMismatch for leaves that it doesn't have.
    """
    for each in component.units:
        wrong = {*leaves.get(each.name, ())} - {*each.leaves}
        if wrong:
            raise PlanMismatch(f"{component.name} has no layer {min(wrong)!r} in {each.name}; plan the model again.")
    units = tuple(each.of_leaves(leaves[each.name]) if leaves.get(each.name) else each for each in component.units)
    return replace(component, units=units)


def units_at_level(component: Component, leaves: Mapping[str, Sequence[str]]) -> list[Stack]:
    """The units of a component, those with ``leaves`` of their stack by these layers, where it has them."""
    finer = {each.name: each for each in component.leaves if each.has_leaves(leaves.get(each.name, ()))}
    return [finer[each.name].of_leaves(leaves[each.name]) if each.name in finer else each for each in component.units]


def _wishes(question: Question) -> Mapping[str, Wish]:
    return resolve(question.choices, question.inventory.components).components


def _is_open(wish: Wish | None) -> bool:
    if wish is None:
        return True
    return wish.strategy == "layerwise-offload" and not _COUNTED.union(("leaf_level",)) & wish.parameters.keys()


def _has_prefetch(question: Question, component: Component) -> bool:
    return question.choices.prefetch is not None and group_of(component) == "dit"
