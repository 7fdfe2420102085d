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

    @property
    def watching(self) -> bool:
        """Whether any block is still watched."""
        return bool(self._stops)

    def ran(self, name: str) -> None:
        """The block's forward begins."""
        self._ran.add(name)

    def end(self, *, whole: bool) -> None:
        """A call is over."""
        for name in self._ran if whole else ():
            self.stop(name)
        self._ran.clear()

    def stop(self, name: str) -> None:
        """Ends the watch over the block now."""
        stop = self._stops.pop(name, None)
        if stop is not None:
            stop()
