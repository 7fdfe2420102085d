"""diffusers' caches over steps on a live component: a dry run leaves them off, so that every step does all its work.

A cache decides by values, which a dry run hasn't, and calls back into the user's pipeline. Its hooks are private names
of diffusers, used nowhere else in this room; ``test_the_caches_of_diffusers_are_known`` tells when they change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

# Modules of ``diffusers.hooks`` whose hooks only replace a forward, by what an earlier step left.
CACHES = frozenset(
    (
        *("faster_cache", "first_block_cache", "mag_cache", "pyramid_attention_broadcast"),
        *("sea_cache", "taylorseer_cache", "text_kv_cache"),
    )
)
_REGISTRY, _CONFIG = "_diffusers_hook", "_cache_config"


class LeftOff:
    """Stands in a copy for what belongs to a cache, until ``take_off`` removes it."""


def cached_forward(part: torch.nn.Module) -> Any:
    """The forward that ``part`` had before its caches; None unless hooks are on it, all of them of such caches."""
    registry = vars(part).get(_REGISTRY)
    if registry is None or not registry.hooks or not all(map(_is_cache, registry.hooks.values())):
        return None
    first = registry._fn_refs[0]
    return first.original_forward or first.forward


def leave_off(part: torch.nn.Module, memo: dict[int, Any]) -> None:
    """Keeps deepcopy from a cached part's hooks: their state is the original's, and may be large."""
    for value in _of_cache(part):
        memo[id(value)] = LeftOff()


def take_off(part: torch.nn.Module) -> None:
    """Gives a copied part its class's own forward again."""
    attributes = vars(part)
    for name in [name for name, value in attributes.items() if isinstance(value, LeftOff)]:
        del attributes[name]


def _of_cache(part: torch.nn.Module) -> Iterator[Any]:
    attributes = vars(part)
    if attributes.get(_CONFIG) is not None:
        yield attributes[_CONFIG]
    if cached_forward(part) is not None:
        yield attributes[_REGISTRY]
        yield attributes["forward"]


def _is_cache(hook: object) -> bool:
    package, _, name = type(hook).__module__.rpartition(".")
    return package == "diffusers.hooks" and name in CACHES
