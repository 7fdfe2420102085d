"""What a loop of steps carries beside what its callback takes, and what ends it, is read from a pipeline's source."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import diffusers
import pytest

from roost.pipelines.step_loops import StepLoop, ends_by_values, step_loop


def _carried(call: Callable[..., Any]) -> frozenset[str]:
    found = step_loop(type("Toy", (), {"__call__": call}))
    assert isinstance(found, StepLoop), found
    assert found.taken == {"latents": "latents"}
    return found.carried


def test_what_each_step_makes_anew_is_not_carried() -> None:
    def call(self, timesteps, latents, callback_on_step_end):
        for i, t in enumerate(timesteps):
            if self.interrupt:
                continue
            scaled = self.scale(latents, t)
            noise = self.unet(scaled)
            latents = self.scheduler.step(noise, t, latents)
            callback_outputs = callback_on_step_end(self, i, t, {})
            latents = callback_outputs.pop("latents", latents)
            if i == len(timesteps) - 1:
                self.progress.update()
        return latents, noise

    assert _carried(call) == frozenset()


def test_what_the_next_step_reads_first_is_carried() -> None:
    def call(self, timesteps, latents, callback_on_step_end):
        before = None
        for i, t in enumerate(timesteps):
            latents, before = self.scheduler.step(self.unet(latents), before, latents)
            callback_outputs = callback_on_step_end(self, i, t, {})
            latents = callback_outputs.pop("latents", latents)
        return latents

    assert _carried(call) == {"before"}


def test_what_is_edited_in_place_or_added_to_is_carried() -> None:
    def call(self, timesteps, latents, callback_on_step_end):
        history, total, mask = [], 0, self.mask()
        for i, t in enumerate(timesteps):
            latents = self.unet(latents)
            history.append(latents)
            total += t
            mask[i] = 0
            self.state.mul_(2)
            callback_outputs = callback_on_step_end(self, i, t, {})
            latents = callback_outputs.pop("latents", latents)
        return latents

    assert _carried(call) == {"history", "total", "mask"}


def test_a_name_that_only_some_conditions_assign_is_known_where_they_hold() -> None:
    def call(self, timesteps, latents, callback_on_step_end):
        for i, t in enumerate(timesteps):
            noise = self.unet(latents)
            if self.guided:
                noise, text = noise.chunk(2)
            if self.guided and self.rescale > 0:
                noise = self.rescaled(noise, text)
            if i > 2:
                late = self.scale(noise)
            if i > 1:
                noise = noise + late
            latents = self.scheduler.step(noise, t, latents)
            callback_outputs = callback_on_step_end(self, i, t, {})
            latents = callback_outputs.pop("latents", latents)
        return latents

    assert _carried(call) == {"late"}


def test_chunks_around_the_steps_carry_what_earlier_chunks_made() -> None:
    def call(self, chunks, latents, callback_on_step_end):
        whole = None
        for chunk in chunks:
            for i, t in enumerate(self.timesteps(chunk)):
                latents = self.unet(latents, [each * 2 for each in chunk])
                callback_outputs = callback_on_step_end(self, i, t, {})
                latents = callback_outputs.pop("latents", latents)
            whole = latents if whole is None else self.joined(whole, latents)
        return whole

    assert _carried(call) == {"whole"}


def test_a_call_that_takes_nothing_back_says_so() -> None:
    def call(self, timesteps, latents, callback_on_step_end):
        for i, t in enumerate(timesteps):
            latents = self.unet(latents)
            callback_on_step_end(self, i, t, {})

    assert step_loop(type("Toy", (), {"__call__": call})) == "Toy has a callback that can't put its latents back"


def test_a_call_that_must_get_something_back_is_left_alone() -> None:
    def call(self, timesteps, latents, callback_on_step_end):
        for i, t in enumerate(timesteps):
            callback_outputs = callback_on_step_end(self, i, t, {})
            latents = callback_outputs.pop("latents", latents)
            text = callback_outputs.pop("prompt_embeds")
            latents = self.unet(latents, text)

    assert step_loop(type("Toy", (), {"__call__": call})) == "Toy has a callback that can't put its latents back"


def test_a_call_whose_source_is_nowhere_says_so() -> None:
    toy = type("Toy", (), {"__call__": functools.partial(print)})
    assert step_loop(toy) == "the source of Toy can't be read"


@pytest.mark.parametrize(
    "name", ["StableDiffusionXLPipeline", "FluxPipeline", "WanPipeline", "LTXPipeline", "QwenImagePipeline"]
)
def test_the_usual_pipelines_carry_their_latents_alone(name: str) -> None:
    found = step_loop(getattr(diffusers, name))
    assert isinstance(found, StepLoop)
    assert found.carried == frozenset()


@pytest.mark.parametrize(
    ("name", "carried"),
    [("LTX2Pipeline", "audio_latents"), ("HeliosPipeline", "history_latents"), ("Flux2KleinKVPipeline", "kv_cache")],
)
def test_pipelines_with_more_state_are_known_by_it(name: str, carried: str) -> None:
    found = step_loop(getattr(diffusers, name))
    assert isinstance(found, StepLoop)
    assert carried in found.carried


# Whether values end it.


class Converging:
    def __call__(self, latents):
        model = self.transformer
        for _ in range(10):
            latents = model(latents)
            if latents.abs().max() < 1:
                break
        return latents


class Interrupted:
    def __call__(self, latents, noise):
        while len(noise) < 3:
            noise = [*noise, latents]
        for _ in range(10):
            if self.interrupt:
                break
            latents = self.transformer(latents)
            for each in noise:
                if each > 1:
                    break
        return latents


class Searching(Interrupted):
    def __call__(self, latents, noise):
        return self.search(super().__call__(latents, noise))

    def search(self, latents):
        while latents.abs().max() > 1:
            latents = self.transformer(latents)
        return latents


@pytest.mark.parametrize(
    ("pipeline", "ends"),
    [
        (Converging, True),
        (Interrupted, False),
        (Searching, True),
        (diffusers.LLaDA2Pipeline, True),
        (diffusers.StableDiffusionAttendAndExcitePipeline, True),
        (diffusers.WanPipeline, False),
        (diffusers.HunyuanVideoPipeline, False),
        (diffusers.QwenImagePipeline, False),
        (diffusers.SkyReelsV2DiffusionForcingPipeline, False),
    ],
)
def test_loops_that_values_end_are_found_in_the_source(pipeline: type, *, ends: bool) -> None:
    assert ends_by_values(pipeline, frozenset({"transformer", "unet", "model"})) is ends


def test_a_pipeline_without_source_may_do_anything() -> None:
    built = type("Built", (), {"__call__": lambda self: None})
    assert ends_by_values(built, frozenset({"transformer"}))
