"""One call of a component's entry: what it was given, in words and as tensors."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedComponent:
    """A component to intercept. Components of one ``kin`` (class, config and dtypes) share their traces."""

    name: str
    module: torch.nn.Module
    blocks: tuple[str, ...]  # names of the units that stream
    kin: object
    loaded_bytes: int  # of its weights, before any call


def weights_bytes(module: torch.nn.Module) -> int:
    """Bytes of the module's weights in the dtypes that they have now."""
    return sum(each.nbytes for each in module.parameters())


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryCall:
    """A component's method, about to be called."""

    component: TracedComponent
    method: str
    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self) -> Any:
        return self.call(*self.args, **self.kwargs)

    def inputs(self) -> list[torch.Tensor]:
        return list(tensors_within((self.args, self.kwargs)))

    def signature(self) -> str:
        """Names, dtypes and shapes of what is given; numbers with a fraction (noise levels) only by their type."""
        names = _parameter_names(getattr(type(self.component.module), self.method))
        named = dict(zip((*names, *map(str, range(len(names), len(self.args)))), self.args, strict=False))
        return " ".join(f"{name}={_in_words(value)}" for name, value in sorted({**named, **self.kwargs}.items()))

    def values(self) -> str:
        """The values of all real tensors given."""
        with _disable_current_modes():
            return repr([each.tolist() for each in self.inputs() if not isinstance(each, FakeTensor)])


@functools.cache
def _parameter_names(function: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(each.name for each in parameters if each.kind in positional)[1:]  # without self


def _in_words(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, bool | int | str | torch.dtype | None):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"({','.join(map(_in_words, value))})"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{_in_words(each)}' for name, each in value.items())}}}"
    return type(value).__name__


def tensors_within(value: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    """The tensors in containers, output classes and, one level deep, other objects (a latent distribution)."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_within(list(value.values()), depth)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_within(each, depth)
    elif dataclasses.is_dataclass(value) or (depth == 0 and hasattr(value, "__dict__")):
        yield from tensors_within(list(vars(value).values()), depth + 1)
