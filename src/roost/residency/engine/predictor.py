"""Which block, or component, comes next: learnt from what came before. Being wrong costs time, never bits."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

Key = tuple[str, tuple[str, ...]]  # an entry, and the order of names seen during it


class Predictor:
    """Orders of names by entry and by the order before, so that passes that take turns are told apart."""

    def __init__(self, initial: Sequence[str]) -> None:
        self._initial = tuple(initial)
        self._latest: dict[str, tuple[str, ...]] = {}
        self._followers: dict[Key, Key] = {}
        self._previous: Key | None = None
        self._entry: str | None = None
        self._seen: list[str] = []
        self._position = -1
        self._order: tuple[str, ...] = ()
        self._follow: tuple[str, ...] = ()
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
        self._entry, self._seen = entry, []
        self._expect(order, after[1] if after is not None else order)

    def advance(self, name: str) -> None:
        """``name`` is used now."""
        self._seen.append(name)
        expected = self._position + 1
        if expected < len(self._order) and self._order[expected] == name:
            self._position = expected
            return
        places = self._places.get(name)
        if places:
            later = bisect_right(places, self._position)
            self._position = places[later] if later < len(places) else places[0]

    def end(self, *, whole: bool) -> None:
        """The pass is over; when it ran ``whole``, its order is what the next such pass expects."""
        if self._entry is None:
            return
        if not whole:
            self._expect(self._order, self._follow)
        elif self._seen:
            key: Key = (self._entry, tuple(self._seen))
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

    def _expect(self, order: tuple[str, ...], follow: tuple[str, ...]) -> None:
        self._position = -1
        if (order, follow) == (self._order, self._follow):
            return
        self._order, self._follow, self._both = order, follow, order + follow
        self._places = {}
        for index, name in enumerate(order):
            self._places.setdefault(name, []).append(index)
        self._first_follow = {name: index for index, name in reversed(list(enumerate(follow)))}
