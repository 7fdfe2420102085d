"""A generation that failed between steps goes on from the last one kept, with the bits that it has uninterrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from live_pipelines import held_by, own_pipeline, request_for
from plans import LAYERWISE, plan_for
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
        with held_by(self.pipeline, self.plan) as held, _failing_in(held, step), pytest.raises(Planted):
            generate_keeping(held, self.request, self.files, resume=True)

    def go_on(self) -> tuple[str, Resumed | None, int]:
        """The digest, what it went on from, and how many denoisers' calls really ran."""
        with held_by(self.pipeline, self.plan) as held, _counted(held) as calls:
            generation, resumed = generate_keeping(held, self.request, self.files, resume=True)
            return generation.digest, resumed, len(calls)


def _world(folder: Path, name: str, **changed: Any) -> World:
    return World(folder, own_pipeline(name), request_for(name, num_inference_steps=STEPS, **changed))


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


@pytest.mark.parametrize("step", [2, 3, 4])
@pytest.mark.parametrize("name", ["sdxl", "flux", "wan2.2", "ltx"])
def test_it_goes_on_from_the_last_step(name: str, step: int, tmp_path: Path) -> None:
    world = _world(tmp_path, name)
    whole = world.whole()
    world.fail_in_step(step)
    digest, resumed, calls = world.go_on()
    assert world.said == []
    assert (digest, resumed) == (whole, Resumed(stage="denoise", step=step - 1))
