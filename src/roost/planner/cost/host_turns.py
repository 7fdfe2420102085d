"""Whose masters are in host memory when, in one generation that gives back what it doesn't need again.

A turn begins where a component is used for the first time. Until its own turn a component needs no host
memory: its weights are read then, and cast as they load. After its last use nothing of it has to be there any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from roost.facts.model import Component
from roost.plan.budget import HostTurn
from roost.planner.buffers import can_come_late, waits_in_files
from roost.planner.cost.movement import host_bytes_of
from roost.planner.placements import Placement
from roost.trace import Trace


@dataclass(frozen=True, slots=True)
class Turns:
    """The turns of one generation, and of each component the first and the last one that it is used in."""

    order: tuple[str, ...]  # whose first use begins each
    used: Mapping[str, tuple[int, int]]
    recast: frozenset[str] = frozenset()  # whose dtype the pipeline changes before it uses them

    @classmethod
    def of(cls, trace: Trace, components: Iterable[str]) -> Turns:
        """By the order of calls that the trace saw."""
        calls = [trace.uses[index].component for index, _ in trace.sequence]
        order = tuple(dict.fromkeys(each for each in calls if each in set(components)))
        begins = [calls.index(each) for each in order]
        last_calls = {each: position for position, each in enumerate(calls)}
        ends = {each: sum(begin <= last_calls[each] for begin in begins) - 1 for each in order}
        recast = frozenset(use.component for use in trace.uses if use.recast_bytes)
        return cls(order, {each: (index, ends[each]) for index, each in enumerate(order)}, recast)

    def span(self, component: Component) -> tuple[int, int]:
        """The first and the last turn in which its masters, if it has any, are in host memory."""
        first, last = self.used.get(component.name, (0, len(self.order) - 1))
        late = waits_in_files(component) or (can_come_late(component) and component.name not in self.recast)
        return first if late else 0, max(0, last)


def host_turns(placements: Sequence[Placement], turns: Turns, available_bytes: int) -> tuple[HostTurn, ...]:
    """Whose masters are there in each turn that changes it; none where all of them fit at once.

    What isn't needed again stays while it fits: a later call may want it after all.
    """
    masters = {each.component.name: host_bytes_of(each) for each in placements}
    if sum(masters.values()) <= available_bytes or not turns.order:
        return ()
    spans = {each.component.name: turns.span(each.component) for each in placements}
    found: list[HostTurn] = []
    there: frozenset[str] = frozenset()
    for turn, component in enumerate(turns.order):
        needed = frozenset(each for each, (first, last) in spans.items() if masters[each] and first <= turn <= last)
        fits = sum(masters[each] for each in there | needed) <= available_bytes
        now = there | needed if fits else needed
        if now != there or not found:
            kept = {each: size for each, size in masters.items() if each in now}
            found.append(HostTurn(component=component, masters=kept, host_bytes=sum(kept.values())))
        there = now
    return tuple(found)
