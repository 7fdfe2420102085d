"""What modules hold as their parameters, exchanged a module at a time.

Binding a tensor through its ``data`` costs 0.14 microseconds, putting another table of parameters into a module costs
0.02. So a streamed block's parameter objects stay as they are, and while its forward runs its modules hold others, made
once for each slot. Buffers are not exchanged, since modules assign new ones while they run; nor are parameters that a
module keeps outside its table (an RNN's flat list), since it would go on reading those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from roost.residency.census import attribute_tensors

Namespace = dict[str, Any]  # a module's own attributes
Table = dict[str, torch.nn.Parameter | None]  # a module's own parameters

bind_one: Callable[[torch.Tensor, torch.Tensor], None] = torch.Tensor.data.__set__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class StandIns:
    """What a unit's modules hold while one slot has its weights, and what its remaining objects are bound to."""

    tables: list[tuple[Namespace, Table]]
    views: list[torch.Tensor]
    made: dict[int, torch.Tensor]  # by the id of the object that each stands for

    @property
    def version(self) -> int:
        """How often they were edited in place: all are views of one buffer, and share its count."""
        return next(iter(self.made.values()))._version if self.made else 0


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
            table: Any = vars(owner).get("_parameters")
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
            namespace["_parameters"] = table
        if self._others:
            self._bind_others(stand_ins.views)

    def take_back(self, bound: Sequence[torch.Tensor]) -> None:
        """Makes the modules read their own parameters again; what is in no table reads ``bound`` again."""
        for namespace, table in self._originals:
            namespace["_parameters"] = table
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
