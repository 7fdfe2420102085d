"""Which blocks of a component stay: over all of them, or a number for each stack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# ``strided``, ``leading``, or how many blocks of each stack stay, in the stacks' order: ``10+8``.
ResidentPolicy = str
RESIDENT_POLICY = r"^(?:strided|leading|[0-9]{1,6}(?:\+[0-9]{1,6})+)$"


def blocks_of_stacks(policy: ResidentPolicy) -> tuple[int, ...]:
    """How many blocks of each stack a policy keeps; empty for one that doesn't say."""
    return tuple(map(int, policy.split("+"))) if "+" in policy else ()


def policy_of(kept: Iterable[int]) -> ResidentPolicy:
    """The policy that keeps so many blocks of each stack, of two or more."""
    return "+".join(map(str, kept))


def check_policy(policy: ResidentPolicy, resident_blocks: int, counts: Sequence[int]) -> None:
    """Raises ValueError unless it has a number for each stack, no more than its blocks, in all no fewer than stay."""
    kept = blocks_of_stacks(policy)
    if kept and len(kept) != len(counts):
        raise ValueError(f"resident_policy {policy} has numbers for {len(kept)} stacks, and there are {len(counts)}")
    if any(most > count for most, count in zip(kept, counts, strict=False)):
        raise ValueError(f"resident_policy {policy} is more than the {'+'.join(map(str, counts))} blocks there are")
    if kept and resident_blocks > sum(kept):
        raise ValueError(f"resident_blocks {resident_blocks} is more than resident_policy {policy} lets stay")
