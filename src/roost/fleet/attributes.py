"""What a pipeline's code changes beside its results: attributes of the pipeline, of its tokenizers and schedulers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from roost.residency.hold.attach import Held
from roost.residency.hold.away import dtype_of

_OWN = ""  # the pipeline's own, among the names of its components
Attributes = dict[str, dict[str, Any]]  # by the component that has them
_GONE = object()


def attributes_of(pipeline: Any) -> Attributes:
    """A copy of each table; what the attributes refer to is not copied."""
    return {name: dict(table) for name, table in _tables(pipeline).items()}


def changed_since(before: Attributes, pipeline: Any) -> Attributes | None:
    """The attributes that are others than ``before``; None where one is gone."""
    found = {
        owner: {name: value for name, value in table.items() if before[owner].get(name, _GONE) is not value}
        for owner, table in _tables(pipeline).items()
    }
    kept = all(before[owner].keys() <= table.keys() for owner, table in _tables(pipeline).items())
    return {owner: changed for owner, changed in found.items() if changed} if kept else None


def change(pipeline: Any, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Makes the changes here that ``changed_since`` found elsewhere."""
    for owner, changed in changes.items():
        _tables(pipeline)[owner].update(changed)


@contextmanager
def as_it_was(held: Held) -> Iterator[None]:
    """Leaves nothing behind of a call that may end early: attributes, and dtypes that components were converted to."""
    own = [each.module for each in held.runtime.components.values()]
    modules = [*own, *(each.module for each in held.away.values())]
    before, dtypes = attributes_of(held.pipeline), [dtype_of(each) for each in modules]
    try:
        yield
    finally:
        for owner, table in _tables(held.pipeline).items():
            table.clear()
            table.update(before[owner])
        for module, dtype in zip(modules, dtypes, strict=True):
            if dtype not in (None, dtype_of(module)):
                module.to(dtype)


def _tables(pipeline: Any) -> dict[str, dict[str, Any]]:
    parts = {
        name: vars(each)
        for name, each in pipeline.components.items()
        if hasattr(each, "__dict__") and not isinstance(each, torch.nn.Module)
    }
    return {_OWN: vars(pipeline), **parts}
