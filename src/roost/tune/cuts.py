"""Stacks of identical blocks cut short for a heat: which blocks stay, and the plan of what is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from roost.facts import Component
from roost.plan import ComponentPlan, PlanDocument
from roost.plan.fields import Masters
from roost.planner.kinds import kind_of

# A run of equal blocks keeps one in so many of them.
_DIVISORS = (4, 3, 2)
# How far a cut may change the share of blocks that is copied in each pass.
_OFF = 0.25
# With fewer to tell apart, a heat saves nothing.
_LEAST_JUDGED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StackCut:
    """The blocks of a stack that stay, by their places in the whole one, and their bytes of all, as they are loaded."""

    kept: tuple[int, ...]
    count: int
    kept_bytes: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How the denoisers are cut: by component and stack, every stack of theirs. ``scale`` is what undoes it.

    ``blocks`` of ``of_blocks`` are left in all of them together, and ``scale`` is bytes of all over bytes left.
    """

    stacks: Mapping[str, Mapping[str, StackCut]]
    blocks: int
    of_blocks: int
    scale: float

    def __str__(self) -> str:
        return f"{self.blocks} of {self.of_blocks} blocks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Faithful:
    """A cut, and the names of those whose plans keep their proportions under it."""

    cut: Cut
    names: frozenset[str]


def choose_cut(components: Iterable[Component], plans: Mapping[str, PlanDocument]) -> Faithful | None:
    """The cut to a quarter, a third or a half that leaves the least to run; None where none is worth a heat.

    Who isn't judged by a heat counts as run whole.
    """
    denoisers = [each for each in components if kind_of(each) == "dit" and each.units]
    if not denoisers:
        return None
    found = []
    for divisor in _DIVISORS:
        cut = cut_of(denoisers, divisor)
        names = frozenset(name for name, plan in plans.items() if keeps_proportions(plan, cut))
        if len(names) >= _LEAST_JUDGED and 2 * cut.blocks <= cut.of_blocks:
            found.append(Faithful(cut=cut, names=names))
    return min(found, key=lambda each: len(each.names) * (each.cut.blocks / each.cut.of_blocks - 1), default=None)


def cut_of(components: Sequence[Component], divisor: int) -> Cut:
    """The cut of these components in which each run of equal blocks keeps one in ``divisor``."""
    stacks = {
        component.name: {unit.name: _stack_cut(unit.block_bytes, divisor) for unit in component.units}
        for component in components
    }
    every = [stack for found in stacks.values() for stack in found.values()]
    return Cut(
        stacks=stacks,
        blocks=sum(len(each.kept) for each in every),
        of_blocks=sum(each.count for each in every),
        scale=sum(each.bytes for each in every) / sum(each.kept_bytes for each in every),
    )


def kept_places(block_bytes: Sequence[int], divisor: int) -> tuple[int, ...]:
    """Which blocks stay: of each run of equal ones the first and the last, one in ``divisor`` and two at least."""
    kept: list[int] = []
    start = 0
    for _, run in groupby(block_bytes):
        length = len(list(run))
        staying = min(length, max(2, -(-length // divisor)))
        first = (staying + 1) // 2
        kept += range(start, start + first)
        kept += range(start + length - (staying - first), start + length)
        start += length
    return tuple(kept)


def keeps_proportions(plan: PlanDocument, cut: Cut) -> bool:
    """Whether a heat with this cut says something of the plan: about the same share of its blocks is copied.

    Masters that stay in files don't survive a cut, which gives the blocks other names.
    """
    for name, stacks in cut.stacks.items():
        component = plan.components.get(name)
        if component is None or [each.name for each in component.stacks] != list(stacks):
            return False
        if component.master is not None and component.master.mapped:
            return False
        count, left = _counts(stacks)
        streamed, slots = _streamed(component, count), component.slots or 0
        streamed_left = _streamed_left(component, count, left)
        share, share_left = streamed / count, streamed_left / left
        if streamed > slots and (streamed_left <= slots or abs(share_left - share) > _OFF * share):
            return False
    return True


def cut_plan(plan: PlanDocument, cut: Cut) -> PlanDocument:
    """The plan for what is left: fewer blocks, and of them as large a share resident. Its prediction is the whole's."""
    components = {
        name: cut_component(each, cut.stacks[name]) if name in cut.stacks else each
        for name, each in plan.components.items()
    }
    return plan.model_copy(update={"components": components})


def cut_component(plan: ComponentPlan, stacks: Mapping[str, StackCut]) -> ComponentPlan:
    """One component's plan for what is left of it. Bytes are exact where all blocks of a stack are equal."""
    records = [
        each.model_copy(
            update={
                "count": len(stacks[each.name].kept),
                "bytes": each.bytes * stacks[each.name].kept_bytes // stacks[each.name].bytes,
            }
        )
        for each in plan.stacks
    ]
    count, left = _counts(stacks)
    dropped_bytes = sum(each.bytes for each in plan.stacks) - sum(each.bytes for each in records)
    changed: dict[str, object] = {"stacks": records, "load_bytes": plan.load_bytes - dropped_bytes}
    if plan.resident_blocks is not None and plan.slots is not None:
        streamed = _streamed_left(plan, count, left)
        changed |= {"resident_blocks": left - streamed, "slots": min(plan.slots, streamed)}
    if plan.master is not None:
        changed["master"] = _masters(plan.master, left)
    return plan.model_copy(update=changed)


def _stack_cut(block_bytes: Sequence[int], divisor: int) -> StackCut:
    kept = kept_places(block_bytes, divisor)
    return StackCut(
        kept=kept,
        count=len(block_bytes),
        kept_bytes=sum(block_bytes[place] for place in kept),
        bytes=sum(block_bytes),
    )


def _counts(stacks: Mapping[str, StackCut]) -> tuple[int, int]:
    return sum(each.count for each in stacks.values()), sum(len(each.kept) for each in stacks.values())


def _streamed(plan: ComponentPlan, count: int) -> int:
    return 0 if plan.resident_blocks is None else count - plan.resident_blocks


def _streamed_left(plan: ComponentPlan, count: int, left: int) -> int:
    """How many of the blocks that are left stream: more than there are slots, if it is so in the whole."""
    streamed, slots = _streamed(plan, count), plan.slots or 0
    if streamed <= slots:
        return min(streamed, left)
    return min(left, max(round(streamed * left / count), slots + 1))


def _masters(master: Masters, left: int) -> Masters:
    """The same tiers in the same shares, for ``left`` blocks."""
    count = master.pinned + master.pageable + master.mapped
    if not count:
        return master
    pinned, mapped = round(master.pinned * left / count), round(master.mapped * left / count)
    return Masters(pinned=pinned, pageable=left - pinned - mapped, mapped=mapped)
