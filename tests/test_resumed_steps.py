"""A generation that failed between steps goes on from the last one kept, with the bits that it has uninterrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from dealing import slow
from kept_worlds import STEPS, failing_decode, world_of, world_of_case
from live_pipelines import held_by
from roost.residency.run.kept import steps
from roost.residency.run.kept.keeper import Resumed, generate_keeping


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def _every_step_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "EVERY_S", 0.0)


@pytest.mark.dealt(3)
@pytest.mark.parametrize(
    ("name", "step", "calls_a_step"),
    [
        ("sdxl", 2, 1),
        ("sdxl", 4, 1),
        ("flux", 3, 1),
        ("wan2.2", 2, 2),
        ("wan2.2", 4, 2),
        ("ltx", 3, 1),
        ("qwen-image", 3, 2),
        ("cogvideox", 3, 1),
    ],
)
def test_it_goes_on_from_the_last_step(name: str, step: int, calls_a_step: int, tmp_path: Path) -> None:
    world = world_of(tmp_path, name)
    whole = world.whole()
    world.fail_in_step(step)
    digest, resumed, calls = world.go_on()
    assert world.said == []
    assert (digest, resumed) == (whole, Resumed(stage="denoise", step=step - 1))
    assert calls == (STEPS - step + 1) * calls_a_step


@pytest.mark.parametrize("name", ["flux", "wan2.2", "ltx", "hunyuanvideo"])
def test_after_a_failed_decode_no_denoiser_runs(name: str, tmp_path: Path) -> None:
    world = world_of(tmp_path, name)
    whole = world.whole()
    world.fail_in(failing_decode)
    assert world.go_on() == (whole, Resumed(stage="decode", step=STEPS), 0)


SCHEDULERS = {
    "multistep": (diffusers.DPMSolverMultistepScheduler, {}),
    "multistep with noise": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "predictor and corrector": (diffusers.UniPCMultistepScheduler, {}),
    "ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "two calls a step": (diffusers.HeunDiscreteScheduler, {}),
    "with noise": (diffusers.DDPMScheduler, {}),
    "latent consistency": (diffusers.LCMScheduler, {}),
    "Runge-Kutta": (diffusers.PNDMScheduler, {}),
}
OFTEN = ("multistep with noise", "ancestral", "two calls a step", "Runge-Kutta")


@pytest.mark.dealt(2)
@pytest.mark.parametrize("kind", [*OFTEN, *slow(*(each for each in SCHEDULERS if each not in OFTEN))])
def test_every_scheduler_goes_on_with_its_state_and_noise(kind: str, tmp_path: Path) -> None:
    scheduler, options = SCHEDULERS[kind]
    world = world_of(tmp_path, "sdxl")
    world.pipeline.scheduler = scheduler.from_config(world.pipeline.scheduler.config, **options)
    whole = world.whole()
    world.fail_in_step(4)
    digest, resumed, calls = world.go_on()
    assert (digest, resumed is not None and resumed.stage, world.said) == (whole, "denoise", [])
    assert calls < STEPS


def test_noise_that_is_drawn_outside_every_generator_goes_on_too(tmp_path: Path) -> None:
    """A denoiser that draws: answered with zeros it draws nothing, so only what was kept can tell."""
    world = world_of(tmp_path, "sdxl")
    forward = world.pipeline.unet.forward
    world.pipeline.unet.forward = lambda *args, **kwargs: (forward(*args, **kwargs)[0] + torch.randn(1),)
    whole = world.whole()
    world.fail_in_step(3)
    digest, resumed, _ = world.go_on()
    assert (digest, resumed) == (whole, Resumed(stage="denoise", step=2))


def test_one_that_fails_again_and_again_goes_on_each_time(tmp_path: Path) -> None:
    world = world_of(tmp_path, "wan2.2")
    whole = world.whole()
    for step in (2, 3, 4):
        world.fail_in_step(step)
    world.fail_in(failing_decode)
    assert world.go_on() == (whole, Resumed(stage="decode", step=STEPS), 0)


def test_nothing_is_kept_before_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "EVERY_S", 3600.0)
    world = world_of(tmp_path, "flux")
    world.fail_in_step(4)
    assert list(tmp_path.iterdir()) == []
    assert world.said == []


# What can't go on exactly: nothing is kept, it is said once, and the next run begins at the start.


def _unknown_scheduler_state(pipeline: Any) -> str:
    pipeline.scheduler.noise_sampler = object()
    return "holds a object"


def _cache_over_steps(pipeline: Any) -> str:
    pipeline.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.5))
    return "transformer has diffusers' hook"


@pytest.mark.parametrize("spoil", [_unknown_scheduler_state, _cache_over_steps])
def test_what_can_t_be_kept_exactly_is_said_once_and_made_again(spoil: Callable[[Any], str], tmp_path: Path) -> None:
    world = world_of(tmp_path, "flux")
    said = spoil(world.pipeline)
    whole = world.whole()
    world.fail_in_step(4)
    assert list(tmp_path.iterdir()) == []
    assert [said in each and "after a failure they are made again." in each for each in world.said] == [True]
    digest, resumed, calls = world.go_on()
    assert (digest, resumed, calls) == (whole, None, STEPS)


def test_a_pipeline_without_a_callback_says_once_that_its_steps_are_made_again(tmp_path: Path) -> None:
    world = world_of_case(tmp_path, "DDPMPipeline")
    whole = world.whole()
    world.fail_in_step(4)
    assert ["has no callback at the end of its steps" in each for each in world.said] == [True]
    assert world.go_on() == (whole, None, STEPS)


def test_a_tensor_that_steps_carry_past_their_callback_is_not_kept(tmp_path: Path) -> None:
    """CogVideoX's DPM scheduler wants the prediction of the step before."""
    world = world_of(tmp_path, "cogvideox")
    world.pipeline.scheduler = diffusers.CogVideoXDPMScheduler.from_config(world.pipeline.scheduler.config)
    world.fail_in_step(4)
    assert list(tmp_path.iterdir()) == []
    assert ["'old_pred_original_sample'" in each for each in world.said] == [True]


def test_a_call_that_has_other_values_now_begins_at_its_start(tmp_path: Path) -> None:
    world = world_of(tmp_path, "flux")
    world.fail_in_step(4)
    world.request = replace(world.request, prompt="a goose")
    whole = world.whole()
    assert world.go_on() == (whole, None, STEPS)
    assert [each.endswith("because the pipeline's call has other values now.") for each in world.said] == [True]


def test_a_call_with_fewer_steps_now_begins_at_its_start(tmp_path: Path) -> None:
    world = world_of(tmp_path, "flux")
    world.fail_in(failing_decode)
    world.request = replace(world.request, more={**world.request.more, "num_inference_steps": 2})
    whole = world.whole()
    assert world.go_on() == (whole, None, 2)
    assert ["is not used, because the pipeline now makes" in each for each in world.said] == [True, True]


def _decodes_twice(pipeline: Any) -> None:
    postprocess = pipeline.image_processor.postprocess

    def postprocessed(image: torch.Tensor, **options: Any) -> Any:
        pipeline.vae.decode(torch.ones(1, 4, 8, 8))
        return postprocess(image, **options)

    pipeline.image_processor.postprocess = postprocessed


def _denoises_after_decoding(pipeline: Any) -> None:
    postprocess = pipeline.image_processor.postprocess
    seen: list[Any] = []
    pipeline.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
    )

    def postprocessed(image: torch.Tensor, **options: Any) -> Any:
        args, kwargs = seen[-1]
        pipeline.transformer(*args, **kwargs)
        return postprocess(image, **options)

    pipeline.image_processor.postprocess = postprocessed


@pytest.mark.parametrize("spoil", [_decodes_twice, _denoises_after_decoding])
def test_a_decode_that_is_not_the_last_word_is_not_gone_on_from_but_the_last_step_is(
    spoil: Callable[[Any], None], tmp_path: Path
) -> None:
    world = world_of(tmp_path, "flux")
    spoil(world.pipeline)
    whole = world.whole()
    world.fail_in(failing_decode)
    digest, resumed, _ = world.go_on()
    assert (digest, resumed) == (whole, Resumed(stage="denoise", step=STEPS - 1))
    assert len(world.said) == 1


@pytest.mark.dealt(2)
@pytest.mark.parametrize("name", ["AnimateDiffPipeline", "StableVideoDiffusionPipeline"])
def test_videos_that_are_decoded_in_chunks_are_kept_whole(name: str, tmp_path: Path) -> None:
    world = world_of_case(tmp_path, name)
    whole = world.whole()
    world.fail_in(failing_decode)
    digest, resumed, calls = world.go_on()
    assert (digest, resumed, calls) == (whole, Resumed(stage="decode", step=STEPS), 0)


def test_a_pipeline_without_a_vae_keeps_nothing(tmp_path: Path) -> None:
    world = world_of_case(tmp_path, "DDPMPipeline")
    with held_by(world.pipeline, world.plan) as held:
        generate_keeping(held, world.request, world.files, resume=True)
    assert list(tmp_path.iterdir()) == []
