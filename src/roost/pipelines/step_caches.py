"""Caches over steps of diffusers: whom they suit, and one of them put in force on a model."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch

from roost.errors import UsageError
from roost.facts.step_cache import CacheName, StepCache
from roost.option_spelling import option
from roost.pipelines.internals.of_diffusers import CACHE_CONFIG, hook_count, kept_registries, mixes_outputs, reset_cache
from roost.pipelines.quiet import quiet_libraries
from roost.pipelines.signatures import call_parameters


def check_cache_class(cache: StepCache, component: str, found: type, pipeline: type) -> None:
    """UsageError for a denoiser's class that takes no cache, and for a pipeline that doesn't say whose call it makes.

    Calls with and without the prompt have caches of their own, and only the pipeline can tell them apart.
    """
    if not hasattr(found, "enable_cache"):
        raise UsageError(
            f"{option('cache', cache.text)}: {component!r} is a {found.__name__}, which has no enable_cache; leave it"
            " out."
        )
    contexts = frozenset(re.findall(r"cache_context\(\s*([^,)]+)", inspect.getsource(pipeline)))
    if not contexts:
        raise UsageError(
            f"{option('cache', cache.text)}: {pipeline.__name__} makes its calls without a cache_context; leave it out."
        )
    if cache.name == "mag" and found.__name__ != _OF_KNOWN_MAGNITUDES:
        raise UsageError(
            f"{option('cache', cache.text)}: how much each step changes is a model's own, and diffusers knows it of"
            f" {_OF_KNOWN_MAGNITUDES} alone; {component!r} is a {found.__name__}, so leave it out."
        )
    if cache.name == "pab" and not _one_call_a_step(pipeline, contexts):
        raise UsageError(
            f"{option('cache', cache.text)}: {pipeline.__name__} makes calls with and without the prompt by turns, and"
            " this cache would take one's attention for the other's; leave it out."
        )


def _one_call_a_step(pipeline: type, contexts: frozenset[str]) -> bool:
    """Whether a step makes one call: with and without the prompt at once, or with it alone unless more is asked for."""
    more = call_parameters(pipeline).get("true_cfg_scale")
    return contexts == {'"cond_uncond"'} or (more is not None and more.default == 1)


def weightless() -> AbstractContextManager[object]:
    """Inside it, modules are made without memory for weights: enough to put a cache on."""
    return torch.device("meta")


def set_cache(module: Any, cache: StepCache, pipeline: Any) -> None:
    """Puts the cache on for good; in its calls it asks ``pipeline`` how far they are.

    UsageError where the model has a cache already, or where diffusers doesn't know what the cache is for in it.
    """
    if vars(module).get(CACHE_CONFIG) is not None:
        raise UsageError(
            f"{option('cache', cache.text)}: this {type(module).__name__} has a cache already; call its disable_cache()"
            " first, or leave it out."
        )
    if cache.name == "taylorseer-lite" and _last_layers(module) != ["proj_out"]:
        found = ", ".join(_last_layers(module)) or "none"
        raise _unsuited(module, cache, f"proj_out is not its one last layer ({found})")
    before = hook_count(module)
    try:
        with quiet_libraries():
            module.enable_cache(_CONFIGS[cache.name](cache, pipeline))
    except (ValueError, IndexError) as error:  # a block's class that has no entry in diffusers' table, or no blocks
        raise _unsuited(module, cache, " ".join(str(error).split())[:200].rstrip(".")) from None
    reason = None
    if hook_count(module) == before:
        reason = f"diffusers finds none of its {cache.skips} by their names"
    elif mixes_outputs(module):
        reason = "its first blocks give a prompt's hidden states too and its last ones don't, which diffusers mixes up"
    if reason is not None:
        module.disable_cache()
        raise _unsuited(module, cache, reason)


def _unsuited(module: Any, cache: StepCache, reason: str) -> UsageError:
    return UsageError(
        f"{option('cache', cache.text)} can't be used on a {type(module).__name__}: {reason}; leave it out."
    )


def _last_layers(module: Any) -> list[str]:
    """Projections to an output: with more than one, what is left out before the others would be missed."""
    return [name for name, _ in module.named_children() if name.endswith("proj_out")]


def use_cache(module: Any, cache: StepCache, pipeline: Any, undo: ExitStack) -> None:
    """The same until ``undo`` is closed; then the module is as it was."""
    undo.enter_context(kept_registries(module))
    set_cache(module, cache, pipeline)
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


# The settings of diffusers' caches; what a name and one number don't say is the library's default.


def _first_block(cache: StepCache, _pipeline: Any) -> Any:
    from diffusers import FirstBlockCacheConfig  # imported here: it brings the library

    return FirstBlockCacheConfig(threshold=cache.threshold)


def _mag(cache: StepCache, pipeline: Any) -> Any:
    """The magnitudes are spread over the steps that the pipeline's present call has, however many these are."""
    from diffusers import MagCacheConfig  # imported here: it brings the library
    from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS, nearest_interp

    class OfTheCall(MagCacheConfig):  # type: ignore[misc]  # diffusers has no types
        def __init__(self) -> None:
            self.threshold = cache.threshold

        num_inference_steps = property(lambda _: pipeline.num_timesteps)
        mag_ratios = property(lambda self: nearest_interp(FLUX_MAG_RATIOS, self.num_inference_steps))

    return OfTheCall()


def _pab(cache: StepCache, pipeline: Any) -> Any:
    from diffusers import PyramidAttentionBroadcastConfig  # imported here: it brings the library

    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=cache.every,
        temporal_attention_block_skip_range=cache.every,
        cross_attention_block_skip_range=cache.every,
        current_timestep_callback=lambda: pipeline.current_timestep,
    )


def _taylorseer(cache: StepCache, _pipeline: Any) -> Any:
    from diffusers import TaylorSeerCacheConfig  # imported here: it brings the library

    return TaylorSeerCacheConfig(cache_interval=cache.every, use_lite_mode=cache.name == "taylorseer-lite")


_OF_KNOWN_MAGNITUDES = "FluxTransformer2DModel"
_CONFIGS: Mapping[CacheName, Callable[[StepCache, Any], Any]] = {
    "first-block": _first_block,
    "mag": _mag,
    "pab": _pab,
    "taylorseer": _taylorseer,
    "taylorseer-lite": _taylorseer,
}
