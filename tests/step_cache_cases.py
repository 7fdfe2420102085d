"""The caches over steps that tests put on, each with what diffusers alone is given for the same."""

from collections.abc import Callable
from typing import Any

from diffusers import MagCacheConfig, PyramidAttentionBroadcastConfig, TaylorSeerCacheConfig
from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS

from roost.facts.step_cache import StepCache

CACHE = StepCache(name="first-block", threshold=2.0)
# The others, each with what diffusers alone is given for a call of so many steps.
OTHERS: dict[str, tuple[StepCache, Callable[[Any, int], Any]]] = {
    "mag": (
        StepCache(name="mag", threshold=9.0),
        lambda _, steps: MagCacheConfig(threshold=9.0, num_inference_steps=steps, mag_ratios=FLUX_MAG_RATIOS),
    ),
    "pab": (
        StepCache(name="pab", every=3),
        lambda pipeline, _: PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=3,
            temporal_attention_block_skip_range=3,
            cross_attention_block_skip_range=3,
            current_timestep_callback=lambda: pipeline.current_timestep,
        ),
    ),
    "taylorseer": (StepCache(name="taylorseer", every=2), lambda *_: TaylorSeerCacheConfig(cache_interval=2)),
    "taylorseer-lite": (
        StepCache(name="taylorseer-lite", every=3),
        lambda *_: TaylorSeerCacheConfig(cache_interval=3, use_lite_mode=True),
    ),
}
