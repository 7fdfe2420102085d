"""A record with other values in some fields, validated like a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from roost.plan.fields import Strict

__all__ = ["revised"]

if TYPE_CHECKING:
    from dataclasses import replace as revised  # mypy checks its keywords by the fields, also of pydantic's classes
else:
    Record = TypeVar("Record", bound=Strict)

    def revised(record: Record, /, **changes: object) -> Record:
        """The record with ``changes``, validated as a whole, as a copy made by pydantic's own method is not."""
        return type(record)(**{**dict(record), **changes})
