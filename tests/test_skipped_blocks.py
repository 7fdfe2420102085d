"""Blocks that diffusers' hooks skip: no copy, no miss, and the bits of the same hooks without Roost."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import FirstBlockCacheConfig, LayerSkipConfig, MagCacheConfig, TaylorSeerCacheConfig, hooks
from diffusers.hooks.first_block_cache import FBCHeadBlockHook

from engine_cases import digest_of, held_on
from live_pipelines import STRATEGIES, digest_without_plan, live_pipeline, state_of
from plans import LAYERWISE, plan_for
from roost.facts.step_cache import StepCache
from roost.plan.revision import revised
from roost.residency.engine.predictor import Predictor
from roost.residency.hold.attach import Held

STEPS = 6
CACHES: dict[str, Callable[[], Any]] = {
    "first block": lambda: FirstBlockCacheConfig(threshold=2.0),
    "magnitudes": lambda: MagCacheConfig(
        threshold=0.5, max_skip_steps=2, retention_ratio=0.25, num_inference_steps=STEPS, mag_ratios=torch.ones(STEPS)
    ),
    "Taylor": lambda: TaylorSeerCacheConfig(cache_interval=3, disable_cache_before_step=2, use_lite_mode=True),
}
PAIRS = [(name, strategy) for name in CACHES for strategy in STRATEGIES if "layer" in strategy or "first" in name]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


@contextmanager
def cached(pipeline: Any, name: str) -> Iterator[None]:
    """The cache on each of the pipeline's transformers."""
    transformers = [each for each in (pipeline.transformer, pipeline.components.get("transformer_2")) if each]
    for each in transformers:
        each.enable_cache(CACHES[name]())
    try:
        yield
    finally:
        for each in transformers:
            each.disable_cache()


@functools.cache
def right_digests(family: str, name: str, generations: int = 1) -> list[str]:
    with cached(live_pipeline(family), name):
        return [
            digest_without_plan(live_pipeline(family), family, num_inference_steps=STEPS) for _ in range(generations)
        ]


@pytest.mark.dealt(4)
@pytest.mark.parametrize(("name", "strategy"), PAIRS)
def test_a_cache_has_its_bits_whether_it_comes_before_or_after_the_attach(name: str, strategy: str) -> None:
    pipeline, right = live_pipeline("flux"), right_digests("flux", name)[0]
    plan = plan_for(pipeline, STRATEGIES[strategy])
    with held_on("flux", plan) as (held, _device):
        without = digest_of(held, "flux", num_inference_steps=STEPS)
        with cached(pipeline, name):
            assert digest_of(held, "flux", num_inference_steps=STEPS) == right != without
        assert digest_of(held, "flux", num_inference_steps=STEPS) == without
    with cached(pipeline, name):
        before = state_of(pipeline)
        with held_on("flux", plan) as (held, _device):
            assert digest_of(held, "flux", num_inference_steps=STEPS) == right
        assert state_of(pipeline) == before


def test_a_cache_taken_off_while_held_leaves_no_trace_of_the_plan() -> None:
    pipeline = live_pipeline("flux")
    with held_on("flux", plan_for(pipeline, LAYERWISE)) as (held, _device), cached(pipeline, "first block"):
        digest_of(held, "flux")
    blocks = [*pipeline.transformer.transformer_blocks, *pipeline.transformer.single_transformer_blocks]
    assert {each.forward.__func__ for each in blocks} == {type(each).forward for each in blocks}


class _Passes:
    """Blocks that ran in each of the transformers' calls, and the bytes that had been copied at its end."""

    def __init__(self, held: Held) -> None:
        self.ran: list[int] = []
        self.copied: list[int] = []
        for name in ("transformer", "transformer_2"):
            component = held.runtime.components.get(name)
            if component is not None:
                self._watch(component, held)

    def _watch(self, component: Any, held: Held) -> None:
        end = component.end

        def noting(*, whole: bool) -> None:
            ran = len(component.predictor._seen)
            end(whole=whole)
            self.ran.append(ran)
            self.copied.append(held.transfers.uploaded_bytes)

        component.end = noting


@pytest.fixture(params=["decided by values", "decided by chance"])
def _decisions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whether the first-block cache decides as it does, or with no order in it."""

    def by_chance(hook: Any, _residual: torch.Tensor) -> bool:
        chance = vars(hook).setdefault("chance", random.Random(0))
        nothing_kept = hook.state_manager.get_state().tail_block_residuals is None
        return chance.random() < 0.5 or nothing_kept

    if request.param == "decided by chance":
        monkeypatch.setattr(FBCHeadBlockHook, "_should_compute_remaining_blocks", by_chance)
    right_digests.cache_clear()
    yield
    right_digests.cache_clear()


@pytest.mark.dealt(3)
@pytest.mark.parametrize("ahead", [1, 2])
@pytest.mark.parametrize("name", CACHES)
@pytest.mark.parametrize("family", ["flux", "qwen-image"])
def test_what_is_copied_is_what_ran(family: str, name: str, ahead: int) -> None:
    see_what_is_copied(family, name, ahead)


@pytest.mark.usefixtures("_decisions")
@pytest.mark.parametrize("ahead", [1, 2])
def test_what_is_copied_is_what_ran_whoever_decides(ahead: int) -> None:
    see_what_is_copied("ltx", "first block", ahead)


def see_what_is_copied(family: str, name: str, ahead: int) -> None:
    """As little as by one who knew before which passes are whole, once it was learnt where passes end."""
    pipeline, right = live_pipeline(family), right_digests(family, name, 3)
    plan = plan_for(pipeline, {**LAYERWISE, "resident_blocks": 0, "prefetch": ahead})
    with cached(pipeline, name), held_on(family, plan) as (held, _device):
        passes, transformer = _Passes(held), held.runtime.components["transformer"]
        blocks, largest = transformer.block_bytes, max(transformer.block_bytes)
        for generation in range(3):
            passes.ran.clear()
            passes.copied.clear()
            assert digest_of(held, family, num_inference_steps=STEPS) == right[generation]
            later = passes.ran[1:]
            whole = sum(ran == len(blocks) for ran in later)
            assert set(later) <= {0, 1, len(blocks)}
            assert whole < len(later)  # it skips something
            beyond = passes.copied[-1] - passes.copied[0] - whole * sum(blocks)
            assert beyond == 0 if generation else 0 <= beyond <= 2 * largest
        assert transformer.misses == 0


@pytest.mark.parametrize("cache", [StepCache(name="pab", every=2), StepCache(name="taylorseer", every=2)])
def test_where_attention_alone_is_skipped_each_block_is_copied_once_a_pass(cache: StepCache) -> None:
    pipeline = live_pipeline("flux")
    plan = plan_for(pipeline, {**LAYERWISE, "resident_blocks": 0, "prefetch": 1})
    with held_on("flux", revised(plan, cache=cache)) as (held, _device):
        passes, transformer = _Passes(held), held.runtime.components["transformer"]
        blocks = transformer.block_bytes
        for _ in range(2):
            passes.ran.clear()
            passes.copied.clear()
            digest_of(held, "flux", num_inference_steps=STEPS)
            assert passes.ran == [len(blocks)] * STEPS
            assert passes.copied[-1] - passes.copied[0] == (STEPS - 1) * sum(blocks)
        assert transformer.misses == 0


def test_a_block_that_guidance_leaves_out_is_not_copied() -> None:
    """Guiders put a hook on a layer for one of a step's calls, and take it off for the next."""
    pipeline = live_pipeline("ltx")
    config = LayerSkipConfig(indices=[2], fqn="transformer_blocks")

    def skipping(held: Held | None) -> tuple[list[str], int]:
        digests, copied = [], 0
        for skips in (False, True, False, True, False):
            if skips:
                hooks.apply_layer_skip(pipeline.transformer, config)
            before = held.transfers.uploaded_bytes if held else 0
            try:
                digests.append(digest_of(held, "ltx") if held else digest_without_plan(pipeline, "ltx"))
            finally:
                if skips:
                    hooks.HookRegistry.check_if_exists_or_initialize(pipeline.transformer).remove_hook(
                        "layer_skip_hook"
                    )
                    copied = held.transfers.uploaded_bytes - before if held else 0
        return digests, copied

    right, _ = skipping(None)
    assert len(set(right)) == 2
    with held_on("ltx", plan_for(pipeline, {**LAYERWISE, "resident_blocks": 0, "prefetch": 1})) as (held, _):
        digests, skipped = skipping(held)
        before = held.transfers.uploaded_bytes
        digest_of(held, "ltx")
        whole = held.transfers.uploaded_bytes - before
        block = held.runtime.components["transformer"].block_bytes[2]
    assert digests == right
    assert whole - skipped >= 2 * block  # of two steps


# The prediction by itself: what it expects after passes that were cut short, whichever they were.

WHOLE = tuple("abcdef")


def pass_over(predictor: Predictor, names: tuple[str, ...]) -> None:
    predictor.begin("forward")
    for name in names:
        predictor.advance(name)
    predictor.end(whole=True)


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_passes_cut_short_leave_the_expectation_of_a_whole_one(cut: int) -> None:
    chance = random.Random(cut)
    predictor = Predictor(WHOLE, cuts=True)
    pass_over(predictor, WHOLE)
    for _ in range(50):
        short = chance.random() < 0.5
        pass_over(predictor, WHOLE[:cut] if short else WHOLE)
        assert predictor.cut_short == short
        assert predictor.upcoming()[: len(WHOLE)] == WHOLE
    assert predictor.is_fork(WHOLE[cut - 1])
    assert not predictor.is_fork(WHOLE[-1])


def test_passes_without_the_middle_are_found_again_where_they_go_on() -> None:
    chance = random.Random(0)
    predictor, inner = Predictor(WHOLE, cuts=True), ("a", "b", "f")
    for names in (WHOLE, inner):
        pass_over(predictor, names)
    for _ in range(50):
        names = inner if chance.random() < 0.5 else WHOLE
        predictor.begin("forward")
        for place, name in enumerate(names):
            predictor.advance(name)
            if place >= 2 and place + 1 < len(names):  # what distinguishes the two has come
                assert predictor.upcoming()[0] == names[place + 1]
        predictor.end(whole=True)
        assert not predictor.cut_short


def test_components_that_a_call_leaves_out_are_no_cut() -> None:
    predictor = Predictor((), cuts=False)
    for names in (("encoder", "dit", "vae"), ("encoder", "dit"), ("encoder", "dit")):
        pass_over(predictor, names)
    assert predictor.upcoming()[:3] == ("encoder", "dit", "encoder")
