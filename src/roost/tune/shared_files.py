"""The memory files in which the trials of a bench share weights: made by the parent, filled by whoever comes first."""

from __future__ import annotations

import os
from collections.abc import Callable

from roost.plan import ComponentPlan, PlanDocument
from roost.probes.host import read_host

_Key = tuple[object, ...]

_STAT_BLOCK_BYTES = 512  # whatever the file system's own blocks are


def _available_bytes() -> int:
    return read_host().available_bytes


class SharedFiles:
    """Anonymous files, which are gone with the last process that has them. ``close`` closes this process's.

    All components of a plan have one, or, where the system has no such files or host memory would become short, none
    any more. ``available_bytes`` says what memory is left now.
    """

    def __init__(self, *, allowed: bool, available_bytes: Callable[[], int] = _available_bytes) -> None:
        self._allowed = allowed and hasattr(os, "memfd_create")
        self._available_bytes = available_bytes
        self._files: dict[_Key, int] = {}
        self.given_up = False  # for want of memory

    def of(self, plan: PlanDocument, need_bytes: int) -> dict[str, int]:
        """A descriptor for each of the plan's components; ``need_bytes`` is what the trial takes beside the files."""
        if not self._allowed:
            return {}
        keys = {name: _key(name, plan.components[name]) for name in plan.load_order}
        more_bytes = sum(max(0, plan.components[name].load_bytes - self._held_bytes(key)) for name, key in keys.items())
        if need_bytes + more_bytes > self._available_bytes():
            self.close()
            self._allowed, self.given_up = False, True
            return {}
        try:
            for name, key in keys.items():
                if key not in self._files:
                    self._files[key] = os.memfd_create(f"roost-{name}")
        except OSError:  # a sandbox without such files
            self.close()
            self._allowed = False
            return {}
        return {name: self._files[key] for name, key in keys.items()}

    def close(self) -> None:
        """Closes all files; the memory is given back when no trial has it any more."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _held_bytes(self, key: _Key) -> int:
        """What is in the file; less than the component where nobody has come to fill it, or has died over it."""
        return os.fstat(self._files[key]).st_blocks * _STAT_BLOCK_BYTES if key in self._files else 0


def _key(name: str, plan: ComponentPlan) -> _Key:
    """Equal for components whose weights are the same bytes."""
    return name, plan.library, plan.class_name, plan.variant, plan.load_dtype, plan.storage
