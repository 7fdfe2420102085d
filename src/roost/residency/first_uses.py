"""What is watched of a block until it has run once: whether its weights are used outside its forward."""

from __future__ import annotations

from collections.abc import Callable


class FirstUses:
    """Ends the watch over each block after the first whole call in which the block ran."""

    def __init__(self) -> None:
        self._stops: dict[str, Callable[[], None]] = {}
        self._ran: set[str] = set()

    def watch(self, name: str, stop: Callable[[], None]) -> None:
        """``stop`` ends the watch over the block."""
        self._stops[name] = stop

    def ran(self, name: str) -> None:
        if self._stops:
            self._ran.add(name)

    def end(self, *, whole: bool) -> None:
        """A call is over."""
        for name in self._ran if whole else ():
            stop = self._stops.pop(name, None)
            if stop is not None:
                stop()
        self._ran.clear()
