"""What goes into a submodule's call and what it leaves, described so that a replay can make it again."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from roost.pipelines.internals.of_fake_tensors import FakeTensor
from roost.pipelines.internals.of_torch import storage_key
from roost.probes.dry_run.fake_ops import FakeOps, span_of
from roost.probes.dry_run.liveness import Liveness

_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


class Indescribable(Exception):
    """Something in a call's arguments or results that a replay can't make again."""


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor in a result: a view of the ``source``-th new storage, or of the ``source``-th tensor handed in."""

    new: bool
    source: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int  # from the storage's start, or from the handed tensor's own offset


@dataclass(frozen=True, slots=True)
class _Same:
    """The ``source``-th tensor handed in, itself."""

    source: int


@dataclass(frozen=True, slots=True)
class _Container:
    """The list or dict handed in at ``position``, itself."""

    position: int


@dataclass(frozen=True, slots=True)
class CallResults:
    """What a call left, with descriptions in the place of tensors."""

    returned: Any
    contents: tuple[tuple[int, Any], ...]  # what the containers handed in hold afterwards, by position
    storages: tuple[tuple[int, torch.dtype], ...]  # elements and dtype of the new storages
    sources: frozenset[int]  # tensors handed in that live on in the results


class Handed:
    """The tensors and containers handed to a call. Tensors are held weakly: a call may free what it replaces."""

    def __init__(self) -> None:
        self.tensors: list[weakref.ref[torch.Tensor]] = []
        self.containers: list[Any] = []
        self._storages: dict[int, int] = {}

    def describe(self, value: Any) -> Any:
        """A hashable description; equal for arguments that a call can't tell apart."""
        if isinstance(value, torch.Tensor):
            return self._describe_tensor(value)
        if isinstance(value, _PLAIN):
            return (type(value), value)
        if type(value) in (list, dict):
            self.containers.append(value)
        if type(value) in (list, tuple):
            return (type(value), *(self.describe(each) for each in value))
        if type(value) is dict:
            return (dict, *((name, self.describe(each)) for name, each in value.items()))
        raise Indescribable

    def _describe_tensor(self, tensor: torch.Tensor) -> tuple[Any, ...]:
        self.tensors.append(weakref.ref(tensor))
        storage = tensor.untyped_storage()
        index = self._storages.setdefault(storage_key(storage), len(self._storages))
        layout = (tuple(tensor.shape), tensor.stride(), tensor.dtype)  # where a tile lies in its storage is all one
        return (*layout, index, storage.nbytes(), isinstance(tensor, FakeTensor))

    def alive(self) -> Iterator[torch.Tensor]:
        return (tensor for ref in self.tensors if (tensor := ref()) is not None)

    def held(self, indices: Iterable[int]) -> dict[int, torch.Tensor]:
        """Strong references to some of the tensors."""
        return {index: tensor for index in indices if (tensor := self.tensors[index]()) is not None}


def read_call_results(returned: Any, handed: Handed, liveness: Liveness, births: int) -> CallResults:
    """What a call that began after ``births`` storages left; raises Indescribable when a replay couldn't make it."""
    return _ResultReader(liveness, births, handed).results(returned)


class _ResultReader:
    """Describes what a finished call left: its output and the containers that it changed."""

    def __init__(self, liveness: Liveness, births: int, handed: Handed) -> None:
        self._liveness = liveness
        self._births = births
        self._handed = handed
        self._sources = {id(tensor): index for index, ref in enumerate(handed.tensors) if (tensor := ref()) is not None}
        self._by_storage = {
            storage_key(tensor.untyped_storage()): index
            for index, ref in enumerate(handed.tensors)
            if (tensor := ref()) is not None
        }
        self._kept: set[int] = set()
        self._new: dict[int, int] = {}
        self._storages: list[tuple[int, torch.dtype]] = []

    def results(self, returned: Any) -> CallResults:
        contents = tuple(
            (position, self._describe_parts(container)) for position, container in enumerate(self._handed.containers)
        )
        described = self._describe(returned)
        if any(key not in self._new for key in self._liveness.born_since(self._births)):
            raise Indescribable  # something that isn't in the results stays alive: a module keeps state
        return CallResults(described, contents, tuple(self._storages), frozenset(self._kept))

    def _describe(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._describe_tensor(value)
        if isinstance(value, _PLAIN):
            return value
        position = next((index for index, each in enumerate(self._handed.containers) if each is value), None)
        return self._describe_parts(value) if position is None else _Container(position)

    def _describe_parts(self, value: Any) -> Any:
        if type(value) in (list, tuple):
            return type(value)(self._describe(each) for each in value)
        if isinstance(value, dict):  # the libraries' output classes are dicts too
            return _Dict(type(value), {name: self._describe(each) for name, each in value.items()})
        raise Indescribable

    def _describe_tensor(self, tensor: torch.Tensor) -> _View | _Same:
        if id(tensor) in self._sources:
            self._kept.add(self._sources[id(tensor)])
            return _Same(self._sources[id(tensor)])
        if not isinstance(tensor, FakeTensor):
            raise Indescribable
        offset, new = tensor.storage_offset(), self._liveness.birth(tensor) > self._births
        storage = tensor.untyped_storage()
        if new:
            source = self._new.setdefault(storage_key(storage), len(self._storages))
            if source == len(self._storages):
                self._storages.append((storage.nbytes() // tensor.element_size(), tensor.dtype))
            expected = self._storages[source][1]
        else:
            found = self._by_storage.get(storage_key(storage))
            handed = None if found is None else self._handed.tensors[found]()
            if found is None or handed is None:
                raise Indescribable
            self._kept.add(found)
            source, expected = found, handed.dtype
            offset -= handed.storage_offset()
        if expected != tensor.dtype:
            raise Indescribable
        return _View(new, source, tuple(tensor.shape), tensor.stride(), int(offset))


@dataclass(frozen=True, slots=True)
class _Dict:
    kind: type
    items: Mapping[str, Any]


class ResultBuilder:
    """Makes what a description describes; a new storage is made with the first of its tensors."""

    def __init__(
        self,
        fake_ops: FakeOps,
        liveness: Liveness,
        results: CallResults,
        handed: Handed,
    ) -> None:
        self._fake_ops = fake_ops
        self._storages = results.storages
        self._containers = handed.containers
        self._sources = handed.held(results.sources)
        self._note = liveness.note
        self._bases: dict[int, torch.Tensor] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, _Same):
            return self._sources[value.source]
        if isinstance(value, _View):
            return self._view(value)
        if isinstance(value, _Container):
            return self._containers[value.position]
        if isinstance(value, _Dict):
            return value.kind(**{name: self(each) for name, each in value.items.items()})
        if type(value) in (list, tuple):
            return type(value)(self(each) for each in value)
        return value

    def _view(self, view: _View) -> torch.Tensor:
        if not view.new:
            source = self._sources[view.source]
            return self._fake_ops.view_of(source, view.size, view.stride, view.offset + int(source.storage_offset()))
        base = self._bases.get(view.source)
        if base is None:
            elements, dtype = self._storages[view.source]
            whole = view.offset == 0 and span_of(view.size, view.stride) == elements
            size, stride = (view.size, view.stride) if whole else ((elements,), (1,))
            base = self._bases[view.source] = self._fake_ops.empty(size, stride, dtype)
            self._note(base)
            if whole:
                return base
        return self._fake_ops.view_of(base, view.size, view.stride, view.offset)


def fill(container: Any, content: Any) -> None:
    if isinstance(container, list):
        container[:] = content
    else:
        container.clear()
        container.update(content)
