"""The cache over steps that is asked for or that a plan names, checked before anything slow."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, get_args

from roost.api.models.attention import denoisers
from roost.api.models.traces import configs_of
from roost.errors import UsageError
from roost.facts.model import ClassFacts, Component, Inventory
from roost.facts.step_cache import BY_THRESHOLD, CacheName, StepCache
from roost.option_spelling import given
from roost.plan import ComponentPlan
from roost.planner.rules.names import kind_of
from roost.profiles.class_facts import load_class_facts

# As in diffusers' own settings.
_NUMBERS: Mapping[CacheName, str] = {
    "first-block": "0.05",
    "mag": "0.06",
    "pab": "2",
    "taylorseer": "5",
    "taylorseer-lite": "5",
}
_OTHER_NAMES: Mapping[str, CacheName] = {"fb": "first-block", "pyramidattentionbroadcast": "pab"}


def cache_of(text: str | None) -> StepCache | None:
    """``NAME[=X]`` as a fact; UsageError in one line for anything else.

    Case, ``-`` and ``_`` don't matter in the name, nor does a ``cache`` at its end.
    """
    if text is None:
        return None
    typed, equals, number = text.strip().partition("=")
    plain = _plain(typed)
    name = _OTHER_NAMES.get(plain) or next((each for each in get_args(CacheName) if _plain(each) == plain), None)
    if name is None:
        *names, last = get_args(CacheName)
        raise UsageError(f"{given('cache', text)} is not known; choose {', '.join(names)} or {last}.")
    try:
        return _cache(name, number if equals else _NUMBERS[name])
    except ValueError:
        what = "the threshold is a number from 0" if name in BY_THRESHOLD else "one step in so many is whole, from 1"
        raise UsageError(f"{given('cache', text)}: {what}, like {name}={_NUMBERS[name]}.") from None


def _cache(name: CacheName, number: str) -> StepCache:
    """ValueError for a text that is not the number that this cache has."""
    if name in BY_THRESHOLD:
        threshold = float(number)
        if not 0 <= threshold < math.inf:
            raise ValueError(number)
        return StepCache(name=name, threshold=threshold)
    every = int(number)
    if not 1 <= every < 2**31:
        raise ValueError(number)
    return StepCache(name=name, every=every)


def _plain(name: str) -> str:
    return re.sub(r"[-_\s]", "", name.casefold()).removesuffix("cache")


def check_cache(
    cache: StepCache | None, pipeline: str | None, components: Iterable[Component] | Mapping[str, ComponentPlan]
) -> None:
    """UsageError for a cache that a denoiser or the pipeline's class can't have; None is none."""
    if cache is None:
        return
    from roost.pipelines.classes import component_class, pipeline_class
    from roost.pipelines.quiet import quiet_libraries
    from roost.pipelines.step_caches import check_cache_class  # imported here: these bring torch

    with quiet_libraries():
        for component, library, class_name in denoisers(components):
            check_cache_class(cache, component, component_class(library, class_name), pipeline_class(pipeline or ""))


def try_cache(cache: StepCache | None, inventory: Inventory) -> None:
    """Puts the cache on the inventory's denoisers without weights; UsageError where their parts can't have it."""
    if cache is None:
        return
    check_cache(cache, inventory.pipeline, inventory.components)
    from roost.pipelines.build import build_component  # imported here: these bring torch
    from roost.pipelines.quiet import quiet_libraries
    from roost.pipelines.step_caches import set_cache, weightless

    facts = load_class_facts()
    with configs_of(inventory) as model_dir, quiet_libraries(), weightless():
        for each in inventory.components:
            if kind_of(each) == "dit":
                class_facts = facts.get(each.class_name, ClassFacts())
                module = build_component(each.name, each, model_dir, class_facts, each.tensors)
                set_cache(module, cache, pipeline=None)


def try_live_cache(cache: StepCache | None, pipeline: Any, inventory: Inventory) -> None:
    """The same on a pipeline in memory, which is left as it was."""
    if cache is None:
        return
    check_cache(cache, inventory.pipeline, inventory.components)
    from roost.pipelines.step_caches import use_cache  # imported here: it brings torch

    with ExitStack() as undo:
        for name, _, _ in denoisers(inventory.components):
            use_cache(getattr(pipeline, name), cache, pipeline, undo)
