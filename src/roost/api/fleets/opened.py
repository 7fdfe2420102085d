"""Which files of a model a process reads."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from roost.plan import PlanDocument


class OpenedFiles:
    """The files below ``folder`` that this process opens inside ``noting``, relative to it.

    Python's own opens are seen; weights are mapped by libraries that it doesn't see, and are those of the components
    that were loaded.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.realpath(folder) + os.sep
        self._noting = False
        self._names: set[str] = set()
        sys.addaudithook(self._hear)  # there is no taking it off

    @contextmanager
    def noting(self) -> Iterator[None]:
        self._noting = True
        try:
            yield
        finally:
            self._noting = False

    def names(self, plan: PlanDocument, taken: Collection[str]) -> list[str]:
        """With the weights of the plan's components but those ``taken`` from another process."""
        read = plan.components.keys() - set(taken)
        weights = {
            name for name in plan.model.files if name.endswith(".safetensors") and name.partition("/")[0] in read
        }
        given = {str(path) for name, path in plan.given_files.items() if name in read}
        return sorted({*self._names, *weights, *given})

    def _hear(self, event: str, args: tuple[object, ...]) -> None:
        if self._noting and event == "open" and isinstance(args[0], str | bytes):
            path = os.path.realpath(os.fsdecode(args[0]))
            if path.startswith(self._folder):
                self._names.add(path.removeprefix(self._folder))
