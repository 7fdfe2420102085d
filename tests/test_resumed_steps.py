"""A generation that failed between steps goes on from the last one kept, with the bits that it has uninterrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

from live_pipelines import held_by, own_pipeline, request_for
from pipeline_cases import CASES
from plans import LAYERWISE, plan_for
from random_weights import fill_with_random_weights
from roost.pipelines.calls import GenerationRequest
from roost.pipelines.entries import wrap_entries
from roost.residency.hold.attach import Held
from roost.residency.run.generate import generate
from roost.residency.run.kept import steps
from roost.residency.run.kept.files import KeptFiles
from roost.residency.run.kept.keeper import Resumed, generate_keeping

STEPS = 4


class Planted(Exception):
    """What a test lets fail."""


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def _every_step_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "EVERY_S", 0.0)


class World:
    """A pipeline, its call, where its output would be, and what was said."""

    def __init__(self, folder: Path, pipeline: Any, request: GenerationRequest) -> None:
        self.pipeline, self.request, self.said = pipeline, request, list[str]()
        self.plan = plan_for(pipeline, LAYERWISE)
        self.files = KeptFiles(folder / "out.png", key="mine", shown="seed 0", say=self.said.append)

    def whole(self) -> str:
        with held_by(self.pipeline, self.plan) as held:
            return generate(held, self.request).digest

    def fail_in_step(self, step: int) -> None:
        """Generates until this step, from 1, calls a denoiser."""
        self.fail_in(lambda held: _failing_in(held, step))

    def fail_in(self, planted: Callable[[Held], AbstractContextManager[None]]) -> None:
        with held_by(self.pipeline, self.plan) as held, planted(held), pytest.raises(Planted):
            generate_keeping(held, self.request, self.files, resume=True)

    def go_on(self) -> tuple[str, Resumed | None, int]:
        """The digest, what it went on from, and how many denoisers' calls really ran."""
        with held_by(self.pipeline, self.plan) as held, _counted(held) as calls:
            generation, resumed = generate_keeping(held, self.request, self.files, resume=True)
            return generation.digest, resumed, len(calls)


def _world(folder: Path, name: str, **changed: Any) -> World:
    return World(folder, own_pipeline(name), request_for(name, num_inference_steps=STEPS, **changed))


def _world_of_case(folder: Path, name: str) -> World:
    torch.manual_seed(0)
    case, more = CASES[name], {"decode_chunk_size": 2} if CASES[name].frames else {}
    pipeline = case.make()
    fill_with_random_weights(pipeline.components)
    for each in pipeline.components.values():
        if isinstance(each, torch.nn.Module):
            each.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    more |= {
        argument: Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 50).convert("RGB") for argument in case.pictures
    }
    more |= {name: value for name, value in case.arguments.items() if name != "prompt"}
    return World(folder, pipeline, GenerationRequest(prompt=case.prompt or "", steps=STEPS, more=more))


@contextmanager
def _failing_in(held: Held, step: int) -> Iterator[None]:
    made, count_step = [0], held.recorder.step

    def count(number: int, total: int | None) -> None:
        made[0] = number
        count_step(number, total)

    def fail(call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if made[0] + 1 >= step:
            raise Planted
        return call(*args, **kwargs)

    held.recorder.step = count
    with _around_denoisers(held, fail):
        yield


@contextmanager
def _counted(held: Held) -> Iterator[list[int]]:
    """Grows by one with each call of a denoiser that is not answered for it."""
    calls: list[int] = []

    def count(call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        calls.append(len(calls))
        return call(*args, **kwargs)

    with _around_denoisers(held, count):
        yield calls


@contextmanager
def _around_denoisers(held: Held, around: Callable[..., Any]) -> Iterator[None]:
    with ExitStack() as undo:
        for name, component in held.runtime.components.items():
            if held.plan.components[name].kind == "dit":
                undo.callback(wrap_entries(component.module, lambda _, *call: around(*call)))
        yield


@contextmanager
def _failing_decode(held: Held) -> Iterator[None]:
    def fail(method: str, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if method == "decode":
            raise Planted
        return call(*args, **kwargs)

    with ExitStack() as undo:
        for name, component in held.runtime.components.items():
            if held.plan.components[name].kind == "vae":
                undo.callback(wrap_entries(component.module, fail))
        yield


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
    world = _world(tmp_path, name)
    whole = world.whole()
    world.fail_in_step(step)
    digest, resumed, calls = world.go_on()
    assert world.said == []
    assert (digest, resumed) == (whole, Resumed(stage="denoise", step=step - 1))
    assert calls == (STEPS - step + 1) * calls_a_step


@pytest.mark.parametrize("name", ["flux", "wan2.2", "ltx", "hunyuanvideo"])
def test_after_a_failed_decode_no_denoiser_runs(name: str, tmp_path: Path) -> None:
    world = _world(tmp_path, name)
    whole = world.whole()
    world.fail_in(_failing_decode)
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


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_every_scheduler_goes_on_with_its_state_and_noise(kind: str, tmp_path: Path) -> None:
    scheduler, options = SCHEDULERS[kind]
    world = _world(tmp_path, "sdxl")
    world.pipeline.scheduler = scheduler.from_config(world.pipeline.scheduler.config, **options)
    whole = world.whole()
    world.fail_in_step(4)
    digest, resumed, calls = world.go_on()
    assert (digest, resumed is not None and resumed.stage, world.said) == (whole, "denoise", [])
    assert calls < STEPS


def test_noise_that_is_drawn_outside_every_generator_goes_on_too(tmp_path: Path) -> None:
    """A denoiser that draws: answered with zeros it draws nothing, so only what was kept can tell."""
    world = _world(tmp_path, "sdxl")
    forward = world.pipeline.unet.forward
    world.pipeline.unet.forward = lambda *args, **kwargs: (forward(*args, **kwargs)[0] + torch.randn(1),)
    whole = world.whole()
    world.fail_in_step(3)
    digest, resumed, _ = world.go_on()
    assert (digest, resumed) == (whole, Resumed(stage="denoise", step=2))


def test_one_that_fails_again_and_again_goes_on_each_time(tmp_path: Path) -> None:
    world = _world(tmp_path, "wan2.2")
    whole = world.whole()
    for step in (2, 3, 4):
        world.fail_in_step(step)
    world.fail_in(_failing_decode)
    assert world.go_on() == (whole, Resumed(stage="decode", step=STEPS), 0)


def test_nothing_is_kept_before_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "EVERY_S", 3600.0)
    world = _world(tmp_path, "flux")
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
    world = _world(tmp_path, "flux")
    said = spoil(world.pipeline)
    whole = world.whole()
    world.fail_in_step(4)
    assert list(tmp_path.iterdir()) == []
    assert [said in each and "after a failure they are made again." in each for each in world.said] == [True]
    digest, resumed, calls = world.go_on()
    assert (digest, resumed, calls) == (whole, None, STEPS)


def test_a_pipeline_without_a_callback_says_once_that_its_steps_are_made_again(tmp_path: Path) -> None:
    world = _world_of_case(tmp_path, "DDPMPipeline")
    whole = world.whole()
    world.fail_in_step(4)
    assert ["has no callback at the end of its steps" in each for each in world.said] == [True]
    assert world.go_on() == (whole, None, STEPS)


def test_a_tensor_that_steps_carry_past_their_callback_is_not_kept(tmp_path: Path) -> None:
    """CogVideoX's DPM scheduler wants the prediction of the step before."""
    world = _world(tmp_path, "cogvideox")
    world.pipeline.scheduler = diffusers.CogVideoXDPMScheduler.from_config(world.pipeline.scheduler.config)
    world.fail_in_step(4)
    assert list(tmp_path.iterdir()) == []
    assert ["'old_pred_original_sample'" in each for each in world.said] == [True]


def test_a_call_that_has_other_values_now_begins_at_its_start(tmp_path: Path) -> None:
    world = _world(tmp_path, "flux")
    world.fail_in_step(4)
    world.request = replace(world.request, prompt="a goose")
    whole = world.whole()
    assert world.go_on() == (whole, None, STEPS)
    assert [each.endswith("because the pipeline's call has other values now.") for each in world.said] == [True]


def test_a_call_with_fewer_steps_now_begins_at_its_start(tmp_path: Path) -> None:
    world = _world(tmp_path, "flux")
    world.fail_in(_failing_decode)
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
    world = _world(tmp_path, "flux")
    spoil(world.pipeline)
    whole = world.whole()
    world.fail_in(_failing_decode)
    digest, resumed, _ = world.go_on()
    assert (digest, resumed) == (whole, Resumed(stage="denoise", step=STEPS - 1))
    assert len(world.said) == 1


@pytest.mark.parametrize("name", ["AnimateDiffPipeline", "StableVideoDiffusionPipeline"])
def test_videos_that_are_decoded_in_chunks_are_kept_whole(name: str, tmp_path: Path) -> None:
    world = _world_of_case(tmp_path, name)
    whole = world.whole()
    world.fail_in(_failing_decode)
    digest, resumed, calls = world.go_on()
    assert (digest, resumed, calls) == (whole, Resumed(stage="decode", step=STEPS), 0)


def test_a_pipeline_without_a_vae_keeps_nothing(tmp_path: Path) -> None:
    world = _world_of_case(tmp_path, "DDPMPipeline")
    with held_by(world.pipeline, world.plan) as held:
        generate_keeping(held, world.request, world.files, resume=True)
    assert list(tmp_path.iterdir()) == []
