"""The methods through which a pipeline calls into a component, and putting something around them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

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
)

Around = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def entry_methods(module: torch.nn.Module) -> tuple[str, ...]:
    """Which of the entry methods ``module`` has."""
    return tuple(name for name in ENTRY_METHODS if callable(getattr(module, name, None)))


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
