"""Where shards get their values from: rows of safetensors files, or a component that was loaded whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open

from roost.residency.weights.mapped_masters import StoredTensor


class Values(Protocol):
    """A component's tensors by name, of which rows can be had."""

    def rows(self, name: str, first: int, end: int) -> torch.Tensor:
        """The rows ``first`` to ``end`` in host memory; all of a tensor without dimensions."""


class FileRows:
    """The tensors of safetensors files, of which no more is read than what is asked for; a context manager.

    One file is open at a time. ``places`` say where each name's tensor is.
    """

    def __init__(self, places: Mapping[str, StoredTensor]) -> None:
        self._places = places
        self._path: Path | None = None
        self._file: Any = None
        self._closing = ExitStack()

    def __enter__(self) -> FileRows:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()
        self._path = None

    def rows(self, name: str, first: int, end: int) -> torch.Tensor:
        place = self._places[name]
        if place.path != self._path:
            self._closing.close()
            self._file = self._closing.enter_context(safe_open(str(place.path), framework="pt"))
            self._path = place.path
        if not place.shape:
            whole: torch.Tensor = self._file.get_tensor(place.key)
            return whole
        found: torch.Tensor = self._file.get_slice(place.key)[first:end]
        return found


class LoadedRows:
    """The tensors of a module as it was loaded; a context manager, after which they are gone."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._tensors = {name: each.detach() for name, each in module.state_dict(keep_vars=True).items()}

    def __enter__(self) -> LoadedRows:
        return self

    def __exit__(self, *_: object) -> None:
        self._tensors.clear()

    def rows(self, name: str, first: int, end: int) -> torch.Tensor:
        found: torch.Tensor = self._tensors[name]
        return found[first:end] if found.ndim else found


def places_in(files: Iterable[StoredTensor], module: torch.nn.Module) -> dict[str, StoredTensor]:
    """Where files have the module's tensors, under their own names and in their shapes; another dtype may be cast.

    ``module`` is built, and needs no values. A tensor with several names needs one of them in the files.
    """
    stored = {each.key: each for each in files}
    tensors = module.state_dict(keep_vars=True)
    same: dict[int, StoredTensor] = {}
    for name, tensor in tensors.items():
        if name in stored and stored[name].shape == tuple(tensor.shape):
            same.setdefault(id(tensor), stored[name])
    return {name: same[id(tensor)] for name, tensor in tensors.items() if id(tensor) in same}
