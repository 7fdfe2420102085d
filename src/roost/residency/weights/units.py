"""What moves together: a block's or the trunk's weights, their master, and what their modules read now."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from roost.pipelines.internals.of_torch import PARAMETERS, as_engine, bind_one, version_of
from roost.residency.weights.census import Entry, attribute_tensors, same_memory
from roost.residency.weights.host_masters import AbsentMaster, HostCopy, Master, lay_out
from roost.residency.weights.watched import unwatch, watch

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
        "_bound", "_entered", "_objects", "_own", "_repeats", "_tables", "_version_entered", "_watcher", "buffer",
        "entries", "fence", "in_use", "kind", "layout", "lent", "master", "name", "ready", "settled", "slot", "spare",
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
        self.lent = False  # someone has edited the master, or holds memory of it
        self._objects = [each for entry in entries for each in entry.objects]
        self._repeats = [index for index, entry in enumerate(entries) for _ in entry.objects]
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

    def find_tables(self, module: torch.nn.Module, names: Iterable[str], aside: Container[int]) -> None:
        """Looks where ``module`` has the unit's objects: under ``names``, and some of them ``aside``."""
        self._tables = ParameterTables(module, self._objects, names, aside)

    def watch(self, watcher: Watcher) -> None:
        """Keeps the objects on the master from now on; ``watcher`` is told who edits them, and asked who reads them."""
        if self._watcher is None:
            self._watcher = watcher
            watch(self._objects, self)

    def unwatch(self) -> None:
        """Makes the objects ordinary tensors again."""
        if self._watcher is not None:
            self._watcher = None
            unwatch(self._objects)

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
        deque(map(bind_one, self._objects, views), maxlen=0)
        self._bound = views

    def bind_home(self) -> None:
        """Makes the objects read the master, except those that someone gave other memory meanwhile.

        Those that he made see their part of the buffer in another way get a copy of what they see.
        """
        self._own = None
        if self.master is None or self._watcher is not None:
            return
        views = self._repeated(self.master.views)
        for each, bound, view in zip(self._objects, self._bound, views, strict=True):
            if same_memory(each, bound):
                each.data = view
            elif self.buffer is not None and _storage(each) == _storage(self.buffer):
                each.data = each.data.to(view.device, copy=True)
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

    def _views_of(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """Views of ``buffer`` to bind, one for every object."""
        return self._repeated(self.layout.views(buffer))

    def _repeated(self, views: list[torch.Tensor]) -> list[torch.Tensor]:
        return [views[index] for index in self._repeats]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


# What modules hold as their parameters, exchanged a module at a time.


Namespace = dict[str, Any]  # a module's own attributes
Table = dict[str, torch.nn.Parameter | None]  # a module's own parameters


@dataclass(frozen=True, slots=True)
class StandIns:
    """What a unit's modules hold while one slot has its weights, and what its remaining objects are bound to."""

    tables: list[tuple[Namespace, Table]]
    views: list[torch.Tensor]
    made: dict[int, torch.Tensor]  # by the id of the object that each stands for

    @property
    def version(self) -> int:
        """How often they were edited in place: all are views of one buffer, and share its count."""
        return version_of(next(iter(self.made.values()))) if self.made else 0


class ParameterTables:
    """The tables of ``module``'s parts that hold ``objects`` under the dotted ``names``.

    ``aside`` are the ids of tensors that some part keeps outside tables, too.
    """

    __slots__ = ("_exchanged", "_objects", "_originals", "_others", "others")

    def __init__(
        self, module: torch.nn.Module, objects: Sequence[torch.Tensor], names: Iterable[str], aside: Container[int]
    ) -> None:
        self._objects = objects
        own = {id(each): index for index, each in enumerate(self._objects) if id(each) not in aside}
        self._originals: list[tuple[Namespace, Table]] = []
        self._exchanged: list[dict[str, int]] = []  # for each table, the names in it of objects by their index
        for owner in _owners(module, names):
            table: Any = vars(owner).get(PARAMETERS)
            # A scripted module's is no dictionary: nothing can be put in its place.
            names = (
                {key: own[id(each)] for key, each in table.items() if id(each) in own} if type(table) is dict else {}
            )
            if names:
                self._originals.append((vars(owner), table))
                self._exchanged.append(names)
        found = {index for names in self._exchanged for index in names.values()}
        self._others = [index for index in range(len(self._objects)) if index not in found]
        self.others = [self._objects[index] for index in self._others]  # what no stand-in can replace

    def stand_ins(self, views: Sequence[torch.Tensor]) -> StandIns:
        """Parameters over ``views``, one for each object in turn, in tables of their own."""
        with torch.inference_mode(False), torch.no_grad():
            indices = {index for names in self._exchanged for index in names.values()}
            made = {index: _like(self._objects[index], views[index]) for index in indices}
        tables: list[tuple[Namespace, Table]] = []
        for (namespace, table), names in zip(self._originals, self._exchanged, strict=True):
            tables.append((namespace, {**table, **{name: made[index] for name, index in names.items()}}))
        by_object: dict[int, torch.Tensor] = {id(self._objects[index]): each for index, each in made.items()}
        return StandIns(tables, [views[index] for index in self._others], by_object)

    def put(self, stand_ins: StandIns) -> None:
        """Makes the modules read ``stand_ins``."""
        for namespace, table in stand_ins.tables:
            namespace[PARAMETERS] = table
        if self._others:
            self._bind_others(stand_ins.views)

    def take_back(self, bound: Sequence[torch.Tensor]) -> None:
        """Makes the modules read their own parameters again; what is in no table reads ``bound`` again."""
        for namespace, table in self._originals:
            namespace[PARAMETERS] = table
        if self._others:
            self._bind_others([bound[index] for index in self._others])

    def _bind_others(self, views: Sequence[torch.Tensor]) -> None:
        deque(map(bind_one, self.others, views), maxlen=0)


def kept_aside(module: torch.nn.Module) -> frozenset[int]:
    """The ids of all tensors that parts of ``module`` keep beside their tables."""
    return frozenset(id(tensor) for part in module.modules() for _, tensor in attribute_tensors(part))


def _owners(module: torch.nn.Module, names: Iterable[str]) -> list[torch.nn.Module]:
    owners = (module.get_submodule(name) for name in dict.fromkeys(name.rpartition(".")[0] for name in names))
    return list({id(owner): owner for owner in owners}.values())


def _like(original: torch.Tensor, view: torch.Tensor) -> torch.nn.Parameter:
    made = torch.nn.Parameter(view, requires_grad=original.requires_grad)
    vars(made).update(vars(original))  # what libraries write onto parameters
    return made
