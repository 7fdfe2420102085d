"""Attributes put onto one instance, past whatever its class makes of assignments."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any


def set_attribute(owner: Any, name: str, value: object, undo: ExitStack) -> None:
    """Sets ``owner.name`` for this instance alone; ``undo`` gives back what the instance had."""
    attributes = vars(owner)
    own = attributes.get(name)

    def restore() -> None:
        if own is None:
            attributes.pop(name, None)
        else:
            attributes[name] = own

    attributes[name] = value
    undo.callback(restore)
