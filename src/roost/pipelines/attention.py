"""Attention backends of diffusers: which there are, and one of them put in force on a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from roost.errors import UsageError
from roost.option_spelling import given, option
from roost.pipelines.internals.of_diffusers import kept_attention
from roost.pipelines.quiet import quiet_libraries


def check_backend(name: str, component: str, found: type) -> None:
    """UsageError for a backend that diffusers doesn't know or would download, and for a class that takes none."""
    from diffusers.models.attention_dispatch import AttentionBackendName

    known = [each.value for each in AttentionBackendName if not _is_downloaded(each.value)]
    if _is_downloaded(name):
        raise UsageError(f"{given('attention', name)} downloads its kernel, which Roost never does; choose another.")
    if name not in known:
        raise UsageError(f"{given('attention', name)} is not known; choose one of {', '.join(known)}.")
    if not hasattr(found, "set_attention_backend"):
        raise UsageError(
            f"{option('attention', name)}: {component!r} is a {found.__name__}, which has no set_attention_backend;"
            " leave it out."
        )


def _is_downloaded(name: str) -> bool:
    """By diffusers' own naming of backends."""
    return name.endswith("_hub")


def set_backend(module: Any, name: str) -> None:
    """Has the module compute attention by that backend for good; UsageError where it can't."""
    with _usable(name):
        module.set_attention_backend(name)


def use_backend(module: Any, name: str, undo: ExitStack) -> None:
    """The same until ``undo`` is closed; then module and process have the backends that they had."""
    from diffusers.models.attention_dispatch import attention_backend

    undo.enter_context(kept_attention(module))
    with _usable(name):
        undo.enter_context(attention_backend(name))  # what other models of this process use
        module.set_attention_backend(name)


@contextmanager
def _usable(name: str) -> Iterator[None]:
    try:
        with quiet_libraries():
            yield
    except (ValueError, RuntimeError, ImportError) as error:  # its package or hardware is not here
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise UsageError(f"{option('attention', name)} can't be used here: {reason}; choose another.") from None
