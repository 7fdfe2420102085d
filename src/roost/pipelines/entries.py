"""The methods through which a pipeline calls into a component, and putting something around them."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

import torch

from roost.pipelines.internals.of_torch import buffers_of, children_of, parameters_of

# Pipelines reach a VAE through encode and decode, and some encoders through these, without ever calling forward.
ENTRY_METHODS = (
    "forward",
    "encode",
    "decode",
    "generate",
    "get_text_features",
    "get_image_features",
    "get_video_features",
    "get_audio_features",
    "post_process_latents",  # of priors: it reads weights after the forward
)

_LIBRARIES = frozenset(("torch", "diffusers", "transformers", "accelerate", "peft", "huggingface_hub", "builtins"))

Around = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def entry_methods(module: torch.nn.Module) -> tuple[str, ...]:
    """The methods through which a pipeline may reach the weights of ``module``: the usual ones and its class's own."""
    usual = [name for name in ENTRY_METHODS if callable(getattr(module, name, None))]
    return (*usual, *(name for name in own_methods(module) if name not in usual))


def of_a_library(kind: type) -> bool:
    """Whether a class is one of those that pipelines are known to call by the usual methods only."""
    return kind.__module__.partition(".")[0] in _LIBRARIES


def own_methods(module: torch.nn.Module) -> tuple[str, ...]:
    """Methods that no library's class has and whose code names parts or weights of ``module``, maybe by each other.

    What only hands out its parts, or changes settings, does no harm as an entry.
    """
    kinds = type(module).__mro__
    known = {name for kind in kinds if of_a_library(kind) for name in vars(kind)}
    own = {name: value for kind in reversed(kinds) if not of_a_library(kind) for name, value in vars(kind).items()}
    named = {
        name: _names_in(inspect.unwrap(value).__code__)
        for name, value in own.items()
        if name not in known and _may_be_entry(name, value)
    }
    reached = {*children_of(module), *parameters_of(module), *buffers_of(module), *ENTRY_METHODS}
    while more := {name for name, names in named.items() if name not in reached and names & reached}:
        reached |= more
    return tuple(name for name in named if name in reached)


def _may_be_entry(name: str, value: object) -> bool:
    """A plain method: not one of Python's own, and none that gives control back before it has run."""
    if name.startswith("__") or not isinstance(value, types.FunctionType):
        return False
    function = inspect.unwrap(value)
    return isinstance(function, types.FunctionType) and not inspect.isgeneratorfunction(function)


def _names_in(code: types.CodeType) -> set[str]:
    """Names and texts (of a getattr) in a function's code and in the functions within it."""
    names = {*code.co_names, *(each for each in code.co_consts if isinstance(each, str))}
    return names.union(*(_names_in(each) for each in code.co_consts if isinstance(each, types.CodeType)))


def wrap_entries(module: torch.nn.Module, around: Around) -> Callable[[], None]:
    """Routes every entry call through ``around(method, call, args, kwargs)``; returns what undoes it.

    Only the instance changes. After undoing, a wrapper that someone else wrapped in turn just passes calls on.
    """
    undoers = [_wrap(module, method, around) for method in entry_methods(module)]

    def unwrap() -> None:
        for undo in reversed(undoers):
            undo()

    return unwrap


def _wrap(module: torch.nn.Module, method: str, around: Around) -> Callable[[], None]:
    original = getattr(module, method)
    own = module.__dict__.get(method)
    wrapped = True

    @functools.wraps(original)
    def entry(*args: Any, **kwargs: Any) -> Any:
        if not wrapped:
            return original(*args, **kwargs)
        return around(method, original, args, kwargs)

    def undo() -> None:
        nonlocal wrapped
        wrapped = False
        if module.__dict__.get(method) is not entry:
            return
        if own is None:
            del module.__dict__[method]
        else:
            module.__dict__[method] = own

    module.__dict__[method] = entry
    return undo
