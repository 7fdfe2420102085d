"""Which blocks of a component stay: over all of them, or a number for each stack."""

from __future__ import annotations

from collections.abc import Iterable

# ``strided``, ``leading``, or how many blocks of each stack stay, in the stacks' order: ``10+8``.
ResidentPolicy = str
RESIDENT_POLICY = r"^(?:strided|leading|[0-9]{1,6}(?:\+[0-9]{1,6})+)$"


def blocks_of_stacks(policy: ResidentPolicy) -> tuple[int, ...]:
    """How many blocks of each stack a policy keeps; empty for one that doesn't say."""
    return tuple(map(int, policy.split("+"))) if "+" in policy else ()


def policy_of(kept: Iterable[int]) -> ResidentPolicy:
    """The policy that keeps so many blocks of each stack, of two or more."""
    return "+".join(map(str, kept))
