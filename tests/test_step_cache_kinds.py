"""Each cache over steps: its bits are diffusers', it is predicted as diffusers computes it, and refused early."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    FirstBlockCacheConfig,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    UNet2DConditionModel,
)

import roost
from live_pipelines import STRATEGIES, digest_without_plan, held_by, own_pipeline, request_for, state_of
from plans import plan_for
from roost.api.plans.export.diffusers import diffusers_script
from roost.api.plans.plan import search_question
from roost.api.requests.option_sets import PlanOptions
from roost.errors import UsageError
from roost.facts.step_cache import StepCache
from roost.pipelines.step_caches import check_cache_class, set_cache, weightless
from roost.plan.revision import revised
from roost.planner.cost.estimate import Forecast
from roost.planner.cost.skipped_steps import most_skipped
from roost.planner.ruling import ruling_on
from roost.residency.run.generate import generate
from roost.trace import UseTrace
from step_cache_cases import CACHE, OTHERS
from tiny_models import build

STEPS = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("flux", tmp_path_factory.mktemp("cached") / "model")


@pytest.mark.dealt(9)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", OTHERS)
def test_so_it_is_with_each_cache_whatever_a_call_s_steps(name: str, strategy: str) -> None:
    cache, config = OTHERS[name]
    alone, pipeline = own_pipeline("flux"), own_pipeline("flux")
    counts, right = (6, 9), list[str]()
    without = digest_without_plan(alone, "flux", num_inference_steps=6)
    for steps in counts:
        alone.transformer.enable_cache(config(alone, steps))
        right.append(digest_without_plan(alone, "flux", num_inference_steps=steps))
        alone.transformer.disable_cache()
    before = state_of(pipeline)
    with held_by(pipeline, revised(plan_for(pipeline, STRATEGIES[strategy]), cache=cache)) as held:
        requests = [request_for("flux", num_inference_steps=steps) for steps in counts]
        assert [generate(held, each).digest for each in requests] == right
    assert state_of(pipeline)[1:] == before[1:]  # the call leaves attributes of its own on a pipeline
    assert right[0] != without


@pytest.mark.dealt(5)
@pytest.mark.parametrize("cache", [CACHE, *(each for each, _ in OTHERS.values())], ids=lambda cache: cache.name)
def test_attach_takes_one(cache: StepCache) -> None:
    alone, pipeline = own_pipeline("flux"), own_pipeline("flux")
    set_cache(alone.transformer, cache, alone)
    small = {"size": (64, 64), "steps": STEPS}
    with pytest.warns(UserWarning, match="no CUDA device"):
        held = roost.attach(pipeline, vram="64MiB", headroom="0", ram="8GiB", cache=cache.text, **small)
    with held, torch.no_grad():
        assert held.plan.cache == cache
        right = digest_without_plan(alone, "flux", num_inference_steps=STEPS)
        assert digest_without_plan(pipeline, "flux", num_inference_steps=STEPS) == right
    assert not pipeline.transformer.is_cache_enabled


def forecast_of(model: Path, **options: Any) -> Forecast:
    asked = search_question(model, PlanOptions(gpu="emulated", vram="64MiB", size="64x64", **options))
    return asked.forecast(ruling_on(asked.question).case)


def denoiser_calls(cache: StepCache, forecast: Forecast, name: str = "transformer") -> list[UseTrace]:
    return [use for use in most_skipped(cache, forecast).ordered_uses() if use.component == name]


@pytest.mark.parametrize("cache", [CACHE, OTHERS["mag"][0], OTHERS["pab"][0]], ids=lambda cache: cache.name)
def test_a_plan_has_both_ends(cache: StepCache, model: Path) -> None:
    room = {"gpu": "emulated", "vram": "64MiB", "headroom": "0", "size": "64x64"}
    plan = roost.make_plan(model, **room, steps=STEPS, cache=cache.text)
    assert plan.predicted is not None
    assert plan.predicted.cached_s is not None
    assert plan.predicted.cached_s.low < plan.predicted.cached_s.high == plan.predicted.first_total_s.mid
    assert any(f"skip {cache.skips} (--cache {cache.text}), which changes" in each for each in plan.warnings)


def test_of_a_call_cut_short_the_first_block_is_left(model: Path) -> None:
    forecast = forecast_of(model, steps=STEPS)
    calls = denoiser_calls(CACHE, forecast)
    whole = next(use for use in forecast.trace.uses if use.component == "transformer")
    assert [len(use.blocks) for use in calls] == [7, *[1] * (STEPS - 1)]
    assert calls[0] == whole
    rest = sum(each.flops for block in whole.blocks[1:] for each in block.totals.values())
    assert calls[1].flops == whole.flops - rest > 0


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_predicted_to_be_whole_is_what_diffusers_computes(name: str, model: Path) -> None:
    """Of broadcast attention the most: diffusers skips nothing of it in the first steps and in the last."""
    steps, (cache, _) = 15, OTHERS[name]
    pipeline, ran = own_pipeline("flux"), set[int]()
    set_cache(pipeline.transformer, cache, pipeline)
    block, step = pipeline.transformer.transformer_blocks[1], iter(range(steps))
    part = block.attn.to_q if cache.skips == "attention" else block.norm1
    now = [0]
    pipeline.transformer.register_forward_pre_hook(lambda *_: now.append(next(step)))
    part.register_forward_hook(lambda *_: ran.add(now[-1]))
    with torch.no_grad():
        digest_without_plan(pipeline, "flux", num_inference_steps=steps)
    calls = denoiser_calls(cache, forecast_of(model, steps=steps))
    predicted = {index for index, use in enumerate(calls) if use == calls[0]}
    assert predicted <= ran if name == "pab" else predicted == ran
    assert len(ran) < steps == len(calls)
    short = next(use for use in calls if use != calls[0])
    if cache.skips == "blocks":
        assert short.blocks == ()
        assert short.flops < calls[0].flops / 2
    else:
        assert len(short.blocks) == len(calls[0].blocks)
        assert calls[0].totals["attention"].flops > short.totals["attention"].flops == 0
        assert short.totals["matmul"] == calls[0].totals["matmul"]


def test_both_calls_of_a_guided_step_are_whole_at_first(tmp_path: Path) -> None:
    forecast = forecast_of(build("wan2.2", tmp_path / "model"), frames=9, steps=8)
    for name in ("transformer", "transformer_2"):
        uses = [len(use.blocks) for use in denoiser_calls(CACHE, forecast, name)]
        assert uses[:2] == [max(uses)] * 2
        assert set(uses[2:]) == {1}


def test_who_takes_no_cache_is_named() -> None:
    check_cache_class(CACHE, "transformer", FluxTransformer2DModel, FluxPipeline)
    with pytest.raises(UsageError, match=r"'unet' is a UNet2DConditionModel, which has no enable_cache"):
        check_cache_class(CACHE, "unet", UNet2DConditionModel, FluxPipeline)
    with pytest.raises(UsageError, match=r"DiffusionPipeline makes its calls without a cache_context"):
        check_cache_class(CACHE, "transformer", FluxTransformer2DModel, __import__("diffusers").DiffusionPipeline)
    mag, pab = OTHERS["mag"][0], OTHERS["pab"][0]
    for cache in (mag, pab):
        check_cache_class(cache, "transformer", FluxTransformer2DModel, FluxPipeline)
    with pytest.raises(UsageError, match=r"mag=9.*of FluxTransformer2DModel alone; 'transformer' is a QwenImageTrans"):
        check_cache_class(mag, "transformer", QwenImageTransformer2DModel, QwenImagePipeline)
    with pytest.raises(UsageError, match=r"QwenImagePipeline makes calls with and without the prompt by turns"):
        check_cache_class(pab, "transformer", QwenImageTransformer2DModel, QwenImagePipeline)
    with pytest.raises(UsageError, match=r"^cache='first-block=0.05': 'unet' is a UNet2DConditionModel"):
        roost.make_plan("sdxl", gpu="rtx-4090", ram="64GiB", cache="first-block")


@pytest.mark.parametrize("policy", ["search", "rules"])
def test_a_cache_that_finds_nothing_to_skip_is_refused_before_a_dry_run(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("roost.probes.dry_run.pipeline_call.trace_pipeline_call")
    with pytest.raises(UsageError, match=r"taylorseer=5.* on a WanTransformer3DModel: diffusers finds none of its att"):
        roost.make_plan("wan2.1-t2v-1.3b", gpu="rtx-4090", ram="64GiB", cache="taylorseer", policy=policy)


def test_blocks_that_a_cache_would_mix_up_are_refused() -> None:
    with weightless():
        transformer = Flux2Transformer2DModel(num_layers=1, num_single_layers=1)
    with pytest.raises(UsageError, match=r"on a Flux2Transformer2DModel: its first blocks give a prompt's hidden st"):
        set_cache(transformer, CACHE, None)
    assert not transformer.is_cache_enabled
    set_cache(transformer, OTHERS["taylorseer-lite"][0], None)


def test_a_pipeline_in_memory_is_tried_too_and_left_as_it_was() -> None:
    pipeline = own_pipeline("ltx")
    before = state_of(pipeline)
    with pytest.raises(UsageError, match="on a LTXVideoTransformer3DModel: diffusers finds none of its attention"):
        roost.attach(pipeline, vram="64MiB", cache="taylorseer")
    assert state_of(pipeline) == before


def test_the_last_layer_must_be_one_alone_to_be_extrapolated() -> None:
    transformer = own_pipeline("flux").transformer
    transformer.add_module("audio_proj_out", torch.nn.Identity())
    with pytest.raises(UsageError, match=r"proj_out is not its one last layer \(proj_out, audio_proj_out\)"):
        set_cache(transformer, OTHERS["taylorseer-lite"][0], None)
    assert not transformer.is_cache_enabled


@pytest.mark.parametrize("name", ["first-block", *OTHERS])
def test_a_script_for_diffusers_makes_the_same_cache(name: str) -> None:
    cache, config = OTHERS.get(name, (CACHE, lambda *_: FirstBlockCacheConfig(threshold=2.0)))
    plan = revised(roost.make_plan("flux.1-dev", gpu="rtx-4090", ram="64GiB", policy="rules"), cache=cache)
    lines = diffusers_script(plan).text.splitlines()
    (line,) = [each for each in lines if "enable_cache" in each]
    names: dict[str, Any] = {"pipe": SimpleNamespace(current_timestep=7)}
    exec("\n".join(each for each in lines if each.startswith("from diffusers")), names)
    made = eval(line.strip().removeprefix("pipe.transformer.enable_cache"), names)
    wanted = config(names["pipe"], plan.workload.steps)
    assert type(made) is type(wanted)
    made, wanted = vars(made), vars(wanted)
    callback, ratios = made.pop("current_timestep_callback", None), made.pop("mag_ratios", torch.ones(1))
    wanted.pop("current_timestep_callback", None)
    assert torch.equal(ratios, wanted.pop("mag_ratios", torch.ones(1)))
    assert callback is None or callback() == 7
    assert made == wanted
