"""The cache over steps that is asked for or that a plan names, checked before anything slow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import cast, get_args

from roost.api.models.attention import denoisers
from roost.errors import UsageError
from roost.facts.model import Component
from roost.facts.step_cache import CacheName, StepCache
from roost.option_spelling import given
from roost.plan import ComponentPlan

# As in diffusers' own settings.
_THRESHOLDS: Mapping[CacheName, float] = {"first-block": 0.05}


def cache_of(text: str | None) -> StepCache | None:
    """``NAME[=threshold]`` as a fact; UsageError in one line for anything else."""
    if text is None:
        return None
    name, equals, number = text.strip().partition("=")
    if name not in get_args(CacheName):
        raise UsageError(f"{given('cache', text)} is not known; choose {' or '.join(get_args(CacheName))}.")
    known = cast(CacheName, name)
    if not equals:
        return StepCache(name=known, threshold=_THRESHOLDS[known])
    try:
        threshold = float(number)
    except ValueError:
        threshold = math.nan
    if not 0 <= threshold < math.inf:
        raise UsageError(
            f"{given('cache', text)}: the threshold is a number from 0, like {known}={_THRESHOLDS[known]:g}."
        )
    return StepCache(name=known, threshold=threshold)


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
