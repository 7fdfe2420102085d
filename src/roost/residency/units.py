"""What moves together: a block's or the trunk's weights, their master, and what their objects read now."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Sequence
from typing import Any, Literal

import torch

from roost.residency.census import Entry
from roost.residency.masters import HostCopy, Master, lay_out
from roost.residency.tables import ParameterTables, StandIns, bind_one

UnitKind = Literal["resident", "held", "streamed"]


class Unit:
    """The weights of one block or of the trunk.

    ``resident`` and ``held`` units have a ``buffer`` of their own while loaded, ``streamed`` ones pass through a slot.
    Objects are bound for long; between ``enter`` and ``leave`` the modules hold stand-ins for them. ``in_use`` counts
    running forwards. A loaded unit is ``settled`` once the compute lane waits for its copy.
    """

    __slots__ = (
        "_bound", "_objects", "_placeholders", "_repeats", "_tables", "buffer", "entries", "in_use", "kind", "layout",
        "master", "name", "ready", "settled", "slot", "spare",
    )  # fmt: skip

    def __init__(self, name: str, entries: Sequence[Entry]) -> None:
        self.name, self.entries, self.layout = name, tuple(entries), lay_out(entries)
        self.kind: UnitKind = "resident"
        self.master: HostCopy | None = None  # None while a resident component's only copy is on the device
        self.spare: Master | None = None  # what may hold the master again
        self.buffer: torch.Tensor | None = None
        self.ready: Any = None
        self.settled = False
        self.slot: Any = None
        self.in_use = 0
        self._objects = [each for entry in entries for each in entry.objects]
        self._repeats = [index for index, entry in enumerate(entries) for _ in entry.objects]
        self._bound: list[torch.Tensor] = []
        self._placeholders: list[torch.Tensor] = []

    @property
    def bytes(self) -> int:
        return self.layout.bytes

    @property
    def loaded(self) -> bool:
        return self.buffer is not None

    def find_tables(self, module: torch.nn.Module, names: Iterable[str], aside: Container[int]) -> None:
        """Looks where ``module`` has the unit's objects: under ``names``, and some of them ``aside``."""
        self._tables = ParameterTables(module, self._objects, names, aside)

    def views_of(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """Views of ``buffer`` to bind, one for every object."""
        return self._repeated(self.layout.views(buffer))

    def stand_ins(self, buffer: torch.Tensor) -> StandIns:
        """What the modules hold during a forward that reads ``buffer``."""
        return self._tables.stand_ins(self.views_of(buffer))

    def enter(self, stand_ins: StandIns) -> None:
        """Makes the modules read ``stand_ins`` until ``leave``."""
        self._tables.put(stand_ins)

    def leave(self) -> None:
        """Makes the modules read what is bound."""
        self._tables.take_back(self._bound)

    def adopt(self, master: HostCopy) -> None:
        """Takes the master that the objects already read."""
        self.master, self._bound = master, self._repeated(master.views)

    def move_to(self, master: HostCopy) -> None:
        """Makes the objects read ``master``, which holds the same bytes as what they read."""
        self.master = master
        self.bind(self._repeated(master.views))

    def bind(self, views: list[torch.Tensor]) -> None:
        """Makes every object read ``views``."""
        deque(map(bind_one, self._objects, views), maxlen=0)
        self._bound = views

    def unbind(self, device: torch.device) -> None:
        """Keeps shape, dtype and device as they are in use, and gives NaN to whoever reads without asking."""
        if not self._placeholders:
            self._placeholders = self._repeated([_placeholder(entry.tensor, device) for entry in self.entries])
        self.bind(self._placeholders)

    def bind_home(self) -> None:
        """Makes the objects read the master, except those that someone gave other memory meanwhile."""
        if self.master is None:
            return
        views = self._repeated(self.master.views)
        for each, bound, view in zip(self._objects, self._bound, views, strict=True):
            if _same_memory(each, bound):
                each.data = view
        self._bound = views
        self._placeholders = []

    def is_intact(self) -> bool:
        """Whether every object still reads what was bound last."""
        return len(self._bound) == len(self._objects) and all(map(_same_memory, self._objects, self._bound))

    def _repeated(self, views: list[torch.Tensor]) -> list[torch.Tensor]:
        return [views[index] for index in self._repeats]


def _placeholder(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):
        if tensor.is_floating_point() or tensor.is_complex():
            one = torch.full((1,), float("nan"), dtype=torch.float32).to(device, tensor.dtype)
        else:
            highest = 1 if tensor.dtype == torch.bool else torch.iinfo(tensor.dtype).max
            one = torch.full((1,), highest, dtype=tensor.dtype, device=device)
        return one.as_strided(tensor.shape, (0,) * tensor.ndim)


def _same_memory(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    return tensor.data_ptr() == other.data_ptr() and tensor.dtype == other.dtype and tensor.shape == other.shape
