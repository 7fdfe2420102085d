"""Whether a call runs inside another."""

from __future__ import annotations


class Nesting:
    """True while as many contexts are open as one likes, and one at least; each use is such a context."""

    def __init__(self) -> None:
        self._depth = 0

    def __bool__(self) -> bool:
        return self._depth > 0

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
