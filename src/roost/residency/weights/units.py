"""What moves together: a block's or the trunk's weights, their master, and what their modules read now."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any, Literal, Protocol

import torch

from roost.pipelines.formats.packed_tensors import follow_parts
from roost.pipelines.internals.of_torch import as_engine
from roost.residency.weights.census import Entry, same_memory
from roost.residency.weights.host_masters import AbsentMaster, HostCopy, Master, SharedMaster, lay_out
from roost.residency.weights.objects.parameter_tables import ParameterTables, StandIns, bind_all, owners_of
from roost.residency.weights.objects.watched import unwatch, watch

UnitKind = Literal["resident", "held", "streamed"]


class Watcher(Protocol):
    """Who is told what happens to the objects of a component's units."""

    device: torch.device
    stale: bool  # set when a device copy may no longer be what the masters are
    edited: str | None  # the unit whose device copy the component's own code has edited

    @property
    def in_call(self) -> bool:
        """Whether a call into the component runs, on this thread."""

    def keep(self, name: str) -> None:
        """Brings a unit in, for the rest of the call."""


class Unit:
    """The weights of one block or of the trunk.

    ``resident`` and ``held`` units have a ``buffer`` of their own while loaded, ``streamed`` ones pass through a slot.
    The objects of what a plan keeps on the device for good are bound to its buffer. Those of all others stay on their
    master and are watched; between ``enter`` and ``leave`` the modules hold stand-ins for them. ``in_use`` counts
    running forwards. A buffer has a ``fence`` until its copy is enqueued, which must wait for it. A loaded unit is
    ``settled`` once the compute lane waits for its copy.
    """

    __slots__ = (
        "_bound", "_entered", "_objects", "_own", "_repeats", "_tables", "_version_entered", "_watcher", "_wholes",
        "buffer", "entries", "fence", "in_use", "kind", "layout", "leans", "lent", "master", "name", "ready", "settled",
        "slot", "spare",
    )  # fmt: skip

    def __init__(self, name: str, entries: Sequence[Entry]) -> None:
        self.name, self.entries, self.layout = name, tuple(entries), lay_out(entries)
        self.kind: UnitKind = "resident"
        self.master: HostCopy | None = None  # None while a resident component's only copy is on the device
        self.spare: Master | None = None  # what may hold the master again
        self.buffer: torch.Tensor | None = None
        self.fence: Any = None
        self.ready: Any = None
        self.settled = False
        self.slot: Any = None
        self.in_use = 0
        self.leans = False  # parts of its weights move with the trunk
        self.lent = False  # someone has edited the master, or holds memory of it
        self._objects = [each for entry in entries for each in entry.objects]
        self._repeats = [index for index, entry in enumerate(entries) for _ in entry.objects]
        self._wholes = [each for entry in entries for each in entry.wholes]  # packed weights that objects are parts of
        self._bound: list[torch.Tensor] = []
        self._watcher: Watcher | None = None
        self._own: StandIns | None = None  # over ``buffer``
        self._entered: StandIns | None = None
        self._version_entered = 0  # of those, when they were put

    @property
    def bytes(self) -> int:
        return self.layout.bytes

    @property
    def bound(self) -> list[torch.Tensor]:
        """What the objects read between uses, one each."""
        return self._bound

    @property
    def loaded(self) -> bool:
        return self.buffer is not None

    @property
    def writable(self) -> Master | None:
        """The master, where it may be written to: a checkpoint may not, nor what other processes read."""
        return self.master if isinstance(self.master, Master) and not isinstance(self.master, SharedMaster) else None

    def suspect(self) -> None:
        """Someone may have edited what the objects read."""
        if isinstance(self.master, SharedMaster):
            self.master.edited = True

    def find_tables(self, module: torch.nn.Module, names: Iterable[str], aside: Container[int]) -> None:
        """Looks where ``module`` has the unit's weights: under ``names``, and some of them ``aside``."""
        self._tables = ParameterTables(owners_of(module, names), self._objects, self._wholes, aside)
        self.leans = self._tables.leans

    def watch(self, watcher: Watcher) -> None:
        """Keeps the objects on the master from now on; ``watcher`` is told who edits them, and asked who reads them."""
        if self._watcher is None:
            self._watcher = watcher
            watch((*self._objects, *self._wholes), self)

    def unwatch(self) -> None:
        """Makes the objects ordinary tensors again."""
        if self._watcher is not None:
            self._watcher = None
            unwatch((*self._objects, *self._wholes))

    def settle(self) -> None:
        """The buffer may be read from now on: by stand-ins, or by the objects where nobody watches them."""
        assert self.buffer is not None, "a unit is loaded before it is used"
        self.settled = True
        if self._watcher is None:
            self.bind(self._views_of(self.buffer))
        else:
            self._own = self.stand_ins(self.buffer)

    def stand_ins(self, buffer: torch.Tensor) -> StandIns:
        """What the modules hold during a forward that reads ``buffer``."""
        return self._tables.stand_ins(self._views_of(buffer))

    def enter(self, stand_ins: StandIns | None = None) -> None:
        """Makes the modules read ``stand_ins``, or else the unit's own buffer, until ``leave``."""
        self._entered = stand_ins or self._own
        if self._entered is not None:
            self._version_entered = self._entered.version
            unwatch(self._tables.others)
            self._tables.put(self._entered)

    def leave(self) -> None:
        """Makes the modules read what is bound."""
        if self._entered is not None:
            if self._watcher is not None and self._entered.version != self._version_entered:
                self._watcher.edited = self.name
            self._entered = None
            self._tables.take_back(self._bound)
            watch(self._tables.others, self)

    def adopt(self, master: HostCopy) -> None:
        """Takes the master that the objects already read."""
        self.master, self._bound = master, self._repeated(master.views)

    def move_to(self, master: HostCopy) -> None:
        """Makes the objects read ``master``, which holds the same bytes as what they read."""
        self.master = master
        self.bind(self._repeated(master.views))

    def bind(self, views: list[torch.Tensor]) -> None:
        """Makes every object read ``views``."""
        bind_all(self._objects, views, self._wholes)
        self._bound = views

    def bind_home(self) -> None:
        """Makes the objects read the master, except those that someone gave other memory meanwhile.

        Those that he made see their part of the buffer in another way get a copy of what they see.
        """
        self._own = None
        if self.master is None or self._watcher is not None:
            return
        views = self._repeated(self.master.views)
        with as_engine():
            for each, bound, view in zip(self._objects, self._bound, views, strict=True):
                if same_memory(each, bound):
                    each.data = view
                elif self.buffer is not None and _storage(each) == _storage(self.buffer):
                    each.data = each.data.to(view.device, copy=True)
        for whole in self._wholes:
            follow_parts(whole)
        self._bound = views

    def is_intact(self) -> bool:
        """Whether every object still reads what was bound last; of what is watched that is known."""
        if self._watcher is not None and not self.lent:
            return True
        with as_engine():
            return len(self._bound) == len(self._objects) and all(map(same_memory, self._objects, self._bound))

    # As the home of what it watches

    @property
    def device(self) -> torch.device:
        assert self._watcher is not None, "only what is watched asks"
        return self._watcher.device

    @property
    def in_call(self) -> bool:
        return self._watcher is not None and self._watcher.in_call

    def device_copy(self, tensor: torch.Tensor) -> torch.Tensor:
        assert self._watcher is not None, "only what is watched asks"
        self._watcher.keep(self.name)
        return tensor if self._entered is None else self._entered.made.get(id(tensor), tensor)

    def check_there(self) -> None:
        if isinstance(self.master, AbsentMaster):
            raise self.master.refusal()

    def lend(self) -> None:
        if self._watcher is not None:
            self.lent = self._watcher.stale = True
            self.suspect()

    def _views_of(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """Views of ``buffer`` to bind, one for every object."""
        return self._repeated(self.layout.views(buffer))

    def _repeated(self, views: list[torch.Tensor]) -> list[torch.Tensor]:
        return [views[index] for index in self._repeats]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
