"""Caches over steps that were enabled before the attach: dry-run without them, and then the bits of the same cache."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import diffusers.hooks
import pytest
import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig, PyramidAttentionBroadcastConfig, TaylorSeerCacheConfig

import roost
from attach_options import SMALL
from live_pipelines import own_pipeline, request_for
from roost.probes.dry_run.stand_in import CACHES
from roost.residency.run.generate import tensor_digest

_STEPS = 4
CONFIGS: dict[str, Callable[[Any], Any]] = {
    "first block": lambda _: FirstBlockCacheConfig(threshold=0.9),
    "magnitudes": lambda _: MagCacheConfig(
        threshold=0.5, max_skip_steps=2, retention_ratio=0.25, num_inference_steps=_STEPS, mag_ratios=torch.ones(_STEPS)
    ),
    "Taylor": lambda _: TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=1, max_order=1),
    "attention": lambda pipeline: PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 2000),
        current_timestep_callback=lambda: pipeline._current_timestep,
        spatial_attention_block_identifiers=("transformer_blocks",),
    ),
}


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


def digest(pipeline: Any, seed: int = 0) -> str:
    request = request_for("flux", num_inference_steps=_STEPS)
    generator = torch.Generator("cpu").manual_seed(seed)
    call = {**request.more, "generator": generator, "output_type": "pt", "return_dict": False}
    return tensor_digest(pipeline(prompt=request.prompt, **call)[0])


@pytest.mark.dealt(2)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_cache_enabled_before_the_attach_keeps_its_bits(name: str) -> None:
    alone = own_pipeline("flux")
    without = digest(alone)
    alone.transformer.enable_cache(CONFIGS[name](alone))
    right = [digest(alone, seed) for seed in (0, 1)]
    assert right[0] != without  # it skips something
    pipeline = own_pipeline("flux")
    pipeline.transformer.enable_cache(CONFIGS[name](pipeline))
    wrapped = forwards(pipeline)
    options = {**SMALL, "steps": _STEPS, "set": ("dit=layerwise-offload,resident_blocks=1,prefetch=2",)}
    with roost.attach(pipeline, vram="64MiB", headroom="0", ram="8GiB", **options) as held:
        assert forwards(pipeline) == wrapped
        assert held.plan.predicted is not None
        assert held.plan.predicted.source == "dry-run"
        assert any("transformer was dry-run without its step cache" in each for each in held.plan.warnings)
        assert [digest(pipeline, seed) for seed in (0, 1)] == right
        pipeline.transformer.disable_cache()
        assert digest(pipeline) == without
    assert digest(pipeline) == without


def forwards(pipeline: Any) -> list[object]:
    """What wraps forwards: planning must leave it alone."""
    return [vars(part).get("_diffusers_hook") for part in pipeline.transformer.modules()]


def test_the_caches_of_diffusers_are_known() -> None:
    """A module of hooks with ``cache`` in its name that came later belongs into the list, or it keeps from dry runs."""
    found = {each.name for each in pkgutil.iter_modules(diffusers.hooks.__path__) if "cache" in each.name}
    assert found | {"pyramid_attention_broadcast"} == CACHES
