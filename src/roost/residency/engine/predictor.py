"""Which block, or component, comes next: learnt from what came before. Being wrong costs time, never bits."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

Key = tuple[str, tuple[str, ...]]  # an entry, and the order of names seen during it

_MOST_KNOWN = 8  # orders of an entry that are looked through for one that a pass follows after all


class Predictor:
    """Orders of names by entry and by the order before, so that passes that take turns are told apart.

    A cache over steps ends passes before their time, and nobody knows which. With ``cuts`` a pass that is the
    beginning of a whole one is that one cut short, and no order of its own: what the next whole pass begins with stays.
    Where passes were left is remembered, since what comes after such a name is uncertain.
    """

    def __init__(self, initial: Sequence[str], *, cuts: bool = False) -> None:
        self._initial, self._cuts = tuple(initial), cuts
        self._latest: dict[str, tuple[str, ...]] = {}
        self._followers: dict[Key, Key] = {}
        self._previous: Key | None = None
        self._entry: str | None = None
        self._seen: list[str] = []
        self._position = -1
        self._order: tuple[str, ...] = ()
        self._follow: tuple[str, ...] = ()
        self._known: dict[str, list[tuple[str, ...]]] = {}  # orders of whole passes, the latest last
        self._forks: set[str] = set()
        self.cut_short = False  # the latest pass
        self._both: tuple[str, ...] = ()
        self._places: dict[str, list[int]] = {}
        self._first_follow: dict[str, int] = {}
        self._expect(self._initial, self._initial)

    def begin(self, entry: str) -> None:
        """A pass starts: picks what followed the pass before, else what this entry did last."""
        follower = self._followers.get(self._previous) if self._previous is not None else None
        same = follower is not None and follower[0] == entry
        order = follower[1] if follower is not None and same else self._latest.get(entry, self._initial)
        after = self._followers.get((entry, order))
        self._entry, self._seen, self.cut_short = entry, [], False
        self._expect(order, after[1] if after is not None else order)

    def advance(self, name: str) -> None:
        """``name`` is used now."""
        self._seen.append(name)
        expected = self._position + 1
        if expected < len(self._order) and self._order[expected] == name:
            self._position = expected
            return
        if len(self._seen) > 1:
            self._forks.add(self._seen[-2])
        places = self._places.get(name) or self._places_elsewhere(name)
        if places:
            later = bisect_right(places, self._position)
            self._position = places[later] if later < len(places) else places[0]

    def is_fork(self, name: str) -> bool:
        """Whether a pass has once gone on in another way than was expected after ``name``, or not at all."""
        return name in self._forks

    def end(self, *, whole: bool) -> None:
        """The pass is over; when it ran ``whole``, its order is what the next such pass expects."""
        if self._entry is None:
            return
        if not whole:
            self._expect(self._order, self._follow)
        elif self._seen:
            key = self._learnt(self._entry, tuple(self._seen))
            self._latest[self._entry] = key[1]
            if self._previous is not None:
                self._followers[self._previous] = key
            self._previous = key
            after = self._followers.get(key, key)
            self._expect(after[1], self._followers.get(after, after)[1])
        self._entry = None

    def upcoming(self) -> tuple[str, ...]:
        """Names from the next one on, through the rest of this pass and the pass after it."""
        return self._both[self._position + 1 :]

    def distance(self, name: str) -> int:
        """Uses until ``name`` is next used; more than any other for one that isn't expected."""
        places = self._places.get(name, ())
        later = bisect_right(places, self._position)
        if later < len(places):
            return places[later] - self._position
        first = self._first_follow.get(name)
        rest = len(self._order) - self._position
        return rest + (first if first is not None else len(self._follow) + 1)

    def _learnt(self, entry: str, seen: tuple[str, ...]) -> Key:
        """What a whole pass shall be remembered as."""
        known = self._known.setdefault(entry, [])
        self.cut_short = self._cuts and self._order in known and seen == self._order[: len(seen)] != self._order
        if self.cut_short:
            self._forks.add(seen[-1])
            return entry, self._order
        if seen in known:
            known.remove(seen)
        known.append(seen)
        del known[:-_MOST_KNOWN]
        return entry, seen

    def _places_elsewhere(self, name: str) -> list[int] | None:
        """Expects another pass that this one may be, after a ``name`` that doesn't belong to the expected one."""
        orders = reversed(self._known.get(self._entry or "", ()))
        found = next((order for order in orders if name in order), None)
        if found is None:
            return None
        self._expect(found, found)
        return self._places[name]

    def _expect(self, order: tuple[str, ...], follow: tuple[str, ...]) -> None:
        self._position = -1
        if (order, follow) == (self._order, self._follow):
            return
        self._order, self._follow, self._both = order, follow, order + follow
        self._places = {}
        for index, name in enumerate(order):
            self._places.setdefault(name, []).append(index)
        self._first_follow = {name: index for index, name in reversed(list(enumerate(follow)))}
