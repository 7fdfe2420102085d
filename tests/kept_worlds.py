"""Tiny generations that fail where a test wants them to, and go on from what they kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

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
from roost.residency.run.kept.files import KeptFiles
from roost.residency.run.kept.keeper import Resumed, generate_keeping

STEPS = 4


class Planted(Exception):
    """What a test lets fail."""


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


def world_of(folder: Path, name: str, **changed: Any) -> World:
    return World(folder, own_pipeline(name), request_for(name, num_inference_steps=STEPS, **changed))


def world_of_case(folder: Path, name: str) -> World:
    torch.manual_seed(0)
    case = CASES[name]
    more: dict[str, Any] = {"decode_chunk_size": 2} if case.frames else {}
    pipeline = case.make()
    fill_with_random_weights(pipeline.components)
    for each in pipeline.components.values():
        if isinstance(each, torch.nn.Module):
            each.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    more |= {
        argument: Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 50).convert("RGB") for argument in case.pictures
    }
    more |= {argument: value for argument, value in case.arguments.items() if argument != "prompt"}
    return World(folder, pipeline, GenerationRequest(prompt=case.prompt or "", steps=STEPS, more=more))


@contextmanager
def _failing_in(held: Held, step: int) -> Iterator[None]:
    made, count_step = [0], held.recorder.step

    def count(step: int, steps: int | None) -> None:
        made[0] = step
        count_step(step, steps)

    def fail(call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if made[0] + 1 >= step:
            raise Planted
        return call(*args, **kwargs)

    held.recorder.step = count  # type: ignore[method-assign]
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
def failing_decode(held: Held) -> Iterator[None]:
    def fail(method: str, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if method == "decode":
            raise Planted
        return call(*args, **kwargs)

    with ExitStack() as undo:
        for name, component in held.runtime.components.items():
            if held.plan.components[name].kind == "vae":
                undo.callback(wrap_entries(component.module, fail))
        yield
