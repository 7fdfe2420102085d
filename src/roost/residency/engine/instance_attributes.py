"""Attributes put onto one instance, past whatever its class makes of assignments."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any


def set_attribute(owner: Any, name: str, value: object, undo: ExitStack) -> None:
    """Sets ``owner.name`` for this instance alone; ``undo`` gives back what the instance had."""
    set_attributes([(owner, name, value)], undo)


def set_attributes(wanted: Iterable[tuple[Any, str, object]], undo: ExitStack) -> None:
    """The same for many instances: (owner, name, value) of each."""
    before: list[tuple[dict[str, Any], str, Any]] = []
    undo.callback(_restore, before)
    for owner, name, value in wanted:
        attributes = vars(owner)
        before.append((attributes, name, attributes.get(name)))
        attributes[name] = value


def _restore(before: list[tuple[dict[str, Any], str, Any]]) -> None:
    for attributes, name, own in reversed(before):
        if own is None:
            attributes.pop(name, None)
        else:
            attributes[name] = own
