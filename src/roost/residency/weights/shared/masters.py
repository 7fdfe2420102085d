"""The host masters of one plan that several processes of one host hold: one copy of each component for all of them."""

from __future__ import annotations

import errno
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from roost.residency.weights.shared.component import SharedComponent
from roost.residency.weights.shared.rendezvous import Rendezvous


class SharedMasters:
    """What the processes of one host find each other by: a ``folder`` that is theirs alone, and its owner's to remove.

    They are one user's, see each other's process numbers, and hold the same plan; components that one of them holds
    otherwise are told apart. Components that come late are each process's own: theirs are made and given back in turns
    of its own, for which memory that others still hold would not be free. Masters lie on the host's NUMA ``nodes`` by
    turns, so that cards of all nodes read them alike.
    """

    def __init__(self, folder: Path, nodes: Sequence[int] = ()) -> None:
        self.taken: list[str] = []  # components that this process has from another, and read no weights of
        self._folder, self._nodes = folder, nodes

    def component(self, name: str, facts: Mapping[str, object], *, keeps: bool) -> SharedComponent:
        """The component whose bytes hang on ``facts``; whether this process ``keeps`` its masters.

        Raises OSError where memory can't be shared.
        """
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, "only Linux has memory files")
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        rendezvous = Rendezvous(self._folder, f"{name}-{key[:16]}")
        return SharedComponent(name, rendezvous, keeps=keeps, nodes=self._nodes)
