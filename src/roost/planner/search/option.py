"""One component's placement with its price, and one of them for each component: a whole plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from roost.planner.cost.alone import Leaving
from roost.planner.placements import Placement


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Option:
    """One placement with its price; equal only to itself.

    ``seconds`` are loading (``load_s``) and its own uses in all generations, alone on the device, ``next_s`` those
    of a later generation; ``leavings`` say what is added where it has to leave while it waits for its next use, and
    ``entering_bytes`` what its own uses need in each of the gaps in which others wait. ``idle_bytes`` are on the
    device always; ``own_bytes`` are what its use needs beyond them, activations included; ``sure_bytes`` are
    ``own_bytes`` where it has to be sure that they are enough; ``held_bytes`` are its weights while in use;
    ``acquire_s`` is what it costs to release it and bring it in once more. Its masters take ``host_bytes`` in the
    turns from ``host_first`` to ``host_last``, ``pinned_bytes`` of them pinned.
    """

    placement: Placement
    seconds: float
    load_s: float
    next_s: float
    idle_bytes: int
    own_bytes: int
    sure_bytes: int
    held_bytes: int
    entering_bytes: tuple[int, ...]
    acquire_s: float
    host_bytes: int
    pinned_bytes: int
    complexity: int
    at_bound: bool
    host_first: int = 0
    host_last: int = 0
    leavings: tuple[Leaving, ...] = ()

    @property
    def evicted_s(self) -> float:
        """Its seconds at the least when it has to leave wherever it waits."""
        return self.seconds + sum(each.seconds for each in self.leavings)

    def host_bytes_in(self, turn: int) -> int:
        """Host memory that it takes in one turn."""
        return self.host_bytes if self.host_first <= turn <= self.host_last else 0

    def pinned_bytes_in(self, turn: int) -> int:
        """How much of it is pinned."""
        return self.pinned_bytes if self.host_first <= turn <= self.host_last else 0


def turns_of(options: Iterable[Option]) -> tuple[int, ...]:
    """The turns in which the options together may take the most host memory: those in which one's masters come."""
    return tuple(sorted({each.host_first for each in options}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """One option for each component, in their given order, with the whole plan's seconds and needs."""

    options: tuple[Option, ...]
    seconds: float
    next_s: float

    @property
    def load_s(self) -> float:
        return sum(each.load_s for each in self.options)

    @property
    def complexity(self) -> int:
        return sum(each.complexity for each in self.options)

    @property
    def vram_bytes(self) -> int:
        """The least that every stage fits in, context apart."""
        return sum(each.idle_bytes for each in self.options) + max(each.own_bytes for each in self.options)

    @property
    def host_bytes(self) -> int:
        """The most in any turn."""
        return max(sum(each.host_bytes_in(turn) for each in self.options) for turn in turns_of(self.options))

    @property
    def pinned_bytes(self) -> int:
        """The most in any turn."""
        return max(sum(each.pinned_bytes_in(turn) for each in self.options) for turn in turns_of(self.options))
