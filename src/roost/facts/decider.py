"""Who decided a placement: a typed option, a rule, the search and others; and what each rule did.

Only plan files spell a decider as text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from roost.facts.limits import Label, Name

DetailedKind = Literal["flag", "rule", "run"]
PlainKind = Literal["search", "trial", "default", "live module"]


@dataclass(frozen=True, slots=True)
class Decider:
    """``detail`` is the option as typed, the rule's id, or what happened in a run; of ``other``, all that is known."""

    kind: DetailedKind | PlainKind | Literal["other"]
    detail: str = ""

    @property
    def typed(self) -> bool:
        """Whether the user said it, which nothing changes."""
        return self.kind == "flag"


def spelled(decider: Decider) -> str:
    """As plans have it: ``flag:--fsdp``, ``rule:FALLBACK``, ``search``."""
    if decider.kind == "other":
        return decider.detail
    return f"{decider.kind}:{decider.detail}" if decider.kind in get_args(DetailedKind) else decider.kind


def decider_of(text: str) -> Decider:
    """Back from what ``spelled`` made; a text of someone else's is kept as it is."""
    kind, colon, detail = text.partition(":")
    if colon and kind in get_args(DetailedKind):
        return Decider(cast(DetailedKind, kind), detail)
    return Decider(cast(PlainKind, text)) if text in get_args(PlainKind) else Decider("other", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """A rule that decided something."""

    id: Name
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A rule that would have decided something, or an option that lost; ``by`` an option or a rule."""

    id: Name
    by: Label
