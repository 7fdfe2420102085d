"""Caches over steps of diffusers: whom they suit, and one of them put in force on a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from roost.errors import UsageError
from roost.facts.step_cache import CacheName, StepCache
from roost.option_spelling import option
from roost.pipelines.internals.of_diffusers import CACHE_CONFIG, kept_registries, reset_cache
from roost.pipelines.quiet import quiet_libraries


def check_cache_class(cache: StepCache, component: str, found: type, pipeline: type) -> None:
    """UsageError for a denoiser's class that takes no cache, and for a pipeline that doesn't say whose call it makes.

    Calls with and without the prompt have caches of their own, and only the pipeline can tell them apart.
    """
    if not hasattr(found, "enable_cache"):
        raise UsageError(
            f"{option('cache', cache.text)}: {component!r} is a {found.__name__}, which has no enable_cache; leave it"
            " out."
        )
    if "cache_context(" not in inspect.getsource(pipeline):
        raise UsageError(
            f"{option('cache', cache.text)}: {pipeline.__name__} makes its calls without a cache_context; leave it out."
        )


def set_cache(module: Any, cache: StepCache) -> None:
    """Puts the cache on for good; UsageError where the model has one or its blocks are not known to diffusers."""
    if vars(module).get(CACHE_CONFIG) is not None:
        raise UsageError(
            f"{option('cache', cache.text)}: this {type(module).__name__} has a cache already; call its disable_cache()"
            " first, or leave it out."
        )
    try:
        with quiet_libraries():
            module.enable_cache(_CONFIGS[cache.name](cache.threshold))
    except (ValueError, IndexError) as error:  # a block's class that has no entry in diffusers' table, or no blocks
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise UsageError(
            f"{option('cache', cache.text)} can't be used on a {type(module).__name__}: {reason}; leave it out."
        ) from None


def use_cache(module: Any, cache: StepCache, undo: ExitStack) -> None:
    """The same until ``undo`` is closed; then the module is as it was."""
    undo.enter_context(kept_registries(module))
    set_cache(module, cache)
    undo.callback(module.disable_cache)


@contextmanager
def without_cache(module: Any) -> Iterator[None]:
    """Meanwhile the module has no cache; afterwards a fresh one with the same settings."""
    config = vars(module).get(CACHE_CONFIG)
    if config is None:
        yield
        return
    module.disable_cache()
    try:
        yield
    finally:
        module.enable_cache(config)


def forget_steps(pipeline: Any) -> None:
    """Empties all caches, as a call does that comes to its end: one that broke off left them full."""
    for each in getattr(pipeline, "components", {}).values():
        if getattr(each, "__dict__", {}).get(CACHE_CONFIG) is not None:
            reset_cache(each)


def _first_block(threshold: float) -> Any:
    from diffusers import FirstBlockCacheConfig  # imported here: it brings the library

    return FirstBlockCacheConfig(threshold=threshold)


_CONFIGS: Mapping[CacheName, Callable[[float], Any]] = {"first-block": _first_block}
