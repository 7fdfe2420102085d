"""What modules hold as their parameters, exchanged a module at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from roost.pipelines.formats.packed_tensors import follow_parts, likeness, parts_of
from roost.pipelines.internals.of_torch import PARAMETERS, bind_one, version_of
from roost.residency.weights.census import attribute_tensors

Namespace = dict[str, Any]  # a module's own attributes
Table = dict[str, torch.Tensor | None]  # a module's own parameters


@dataclass(frozen=True, slots=True)
class StandIns:
    """What a unit's modules hold while one slot has its weights, and what its remaining objects are bound to."""

    tables: list[tuple[Namespace, Table]]
    views: list[torch.Tensor]
    made: dict[int, torch.Tensor]  # by the id of the object that each stands for
    counted: torch.Tensor | None  # what they are made of are views of one buffer, and share its count of edits

    @property
    def version(self) -> int:
        """How often they were edited in place."""
        return 0 if self.counted is None else version_of(self.counted)


class ParameterTables:
    """The tables of ``module``'s parts that hold ``objects``, or the ``wholes`` that those are parts of.

    They are there under dotted names of ``owners``. ``aside`` are the ids of tensors that some part keeps outside
    tables, too.
    """

    __slots__ = ("_exchanged", "_objects", "_originals", "_others", "_wholes", "leans", "others")

    def __init__(
        self,
        owners: Iterable[torch.nn.Module],
        objects: Sequence[torch.Tensor],
        wholes: Sequence[torch.Tensor],
        aside: Container[int],
    ) -> None:
        self._objects = objects
        own = {id(each): index for index, each in enumerate(objects)}
        self._originals: list[tuple[Namespace, Table]] = []
        self._exchanged: list[dict[str, torch.Tensor]] = []  # for each table, what of it is exchanged, by its names
        for owner in owners:
            table: Any = vars(owner).get(PARAMETERS)
            # A scripted module's is no dictionary: nothing can be put in its place.
            found = _exchangeable(table, own, aside) if type(table) is dict else {}
            if found:
                self._originals.append((vars(owner), table))
                self._exchanged.append(found)
        exchanged = {id(each): each for names in self._exchanged for each in names.values()}
        parts = {id(part) for each in exchanged.values() for _, part in parts_of(each)}
        self.leans = not parts <= own.keys()  # on parts that move with the trunk
        self._others = [index for index, each in enumerate(objects) if id(each) not in parts]
        self._wholes = [each for each in wholes if id(each) not in exchanged]
        # What no stand-in can replace
        self.others = [*(objects[index] for index in self._others), *self._wholes]

    def stand_ins(self, views: Sequence[torch.Tensor]) -> StandIns:
        """Parameters over ``views``, one for each object in turn, in tables of their own."""
        over: Mapping[int, torch.Tensor] = {id(each): view for each, view in zip(self._objects, views, strict=True)}
        made: dict[int, torch.Tensor] = {}
        with torch.inference_mode(False), torch.no_grad():
            for each in {id(each): each for names in self._exchanged for each in names.values()}.values():
                # A part that moves with the trunk is bound while that is in use, and is the same for both.
                parts = {id(part): over.get(id(part), part) for _, part in parts_of(each)}
                made |= parts
                made[id(each)] = likeness(each, parts.values())
        tables: list[tuple[Namespace, Table]] = []
        for (namespace, table), names in zip(self._originals, self._exchanged, strict=True):
            tables.append((namespace, {**table, **{name: made[id(each)] for name, each in names.items()}}))
        return StandIns(tables, [views[index] for index in self._others], made, views[0] if made else None)

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
        bind_all((self._objects[index] for index in self._others), views, self._wholes)


def bind_all(objects: Iterable[torch.Tensor], views: Iterable[torch.Tensor], wholes: Iterable[torch.Tensor]) -> None:
    """Makes every object read its view; ``wholes`` are what those are parts of."""
    deque(map(bind_one, objects, views), maxlen=0)
    for each in wholes:
        follow_parts(each)


def kept_aside(module: torch.nn.Module) -> frozenset[int]:
    """The ids of all tensors that parts of ``module`` keep beside their tables."""
    return frozenset(id(tensor) for part in module.modules() for _, tensor in attribute_tensors(part))


def owners_of(module: torch.nn.Module, names: Iterable[str]) -> list[torch.nn.Module]:
    """The parts of ``module`` that hold what has these dotted names, each once."""
    owners = (module.get_submodule(name) for name in dict.fromkeys(name.rpartition(".")[0] for name in names))
    return list({id(owner): owner for owner in owners}.values())


def _exchangeable(
    table: Mapping[str, torch.Tensor | None], own: Container[int], aside: Container[int]
) -> dict[str, torch.Tensor]:
    found = {}
    for key, each in table.items():
        if each is not None:
            parts = [part for _, part in parts_of(each)]
            if id(parts[0]) in own and not any(id(part) in aside for part in (each, *parts)):
                found[key] = each
    return found
