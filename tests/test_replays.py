"""A replayed call leaves what the real call leaves; a call that can't be replayed truly runs again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from roost.probes.dry_run.recorder import Recorder
from roost.probes.dry_run.replay import Replays, structure_of
from roost.probes.dry_run.world import FakeWorld


class Counted(torch.nn.Module):
    """Counts the runs of its forward outside the module, so that all instances stay twins."""

    runs = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(256, 256)

    def forward(self, x: torch.Tensor, *more: Any) -> Any:
        type(self).runs += 1
        return self.layer(x)


class Caching(Counted):
    """Keeps its input's end in a list that it is handed, like a causal VAE's convolution."""

    def forward(self, x: torch.Tensor, *more: Any) -> Any:
        (cache,) = more
        joined = x if cache[0] is None else torch.cat([cache[0], x])
        cache[0] = x[-64:].clone()
        return super().forward(joined)[-x.shape[0] :]


class Remembering(Counted):
    """Keeps its last output in itself."""

    def forward(self, x: torch.Tensor, *more: Any) -> Any:
        self.last = super().forward(x)
        return self.last + 1


class Deciding(Counted):
    """Looks at a value."""

    def forward(self, x: torch.Tensor, *more: Any) -> Any:
        (flag,) = more
        return super().forward(x) if flag.item() else x


def run(modules: list[Counted], more: tuple[Any, ...] = (), *, replaying: bool = True) -> tuple[Recorder, Any]:
    """The modules one after another on one input; the recorder and the last output."""
    world = FakeWorld()
    type(modules[0]).runs = 0
    with torch.no_grad(), world:
        for module in modules:
            world.adopt(module)
        x = world.empty((512, 256), (256, 1), torch.float32)
        recorder = Recorder([weight for module in modules for weight in module.parameters()], [x])
        replays = Replays(world, recorder)
        world.observer = recorder
        for module in modules:
            x = replays.call(structure_of(module), module, (x, *more), {}) if replaying else module(x, *more)
        world.observer = None
    return recorder, x


def figures(recorder: Recorder) -> tuple[object, ...]:
    return recorder.frames[0].work.totals(), recorder.activation_bytes(), recorder.liveness.live_bytes


@pytest.mark.parametrize("kind", [Counted, Caching])
def test_twins_run_once_and_leave_what_each_would(kind: type[Counted]) -> None:
    more: tuple[Any, ...] = ([None],) if kind is Caching else ()
    again: tuple[Any, ...] = ([None],) if kind is Caching else ()
    replayed, out = run([kind() for _ in range(5)], more)
    runs = kind.runs
    expected, expected_out = run([kind() for _ in range(5)], again, replaying=False)
    assert runs == (3 if kind is Caching else 1)  # without a cache, with one, and on the end of a longer tensor
    assert figures(replayed) == figures(expected)
    assert (out.shape, out.stride(), out.dtype) == (expected_out.shape, expected_out.stride(), expected_out.dtype)
    if kind is Caching:
        assert more[0][0].shape == again[0][0].shape


@pytest.mark.parametrize(("kind", "more"), [(Remembering, ()), (Deciding, (torch.tensor(True),))])
def test_a_module_with_state_or_a_look_at_values_runs_each_time(kind: type[Counted], more: tuple[Any, ...]) -> None:
    run([kind() for _ in range(3)], more)
    assert kind.runs == 3


def test_modules_of_other_sizes_or_settings_are_no_twins() -> None:
    norms = [torch.nn.LayerNorm(8), torch.nn.LayerNorm(8, eps=1e-6), torch.nn.LayerNorm(16)]
    assert len({structure_of(norm) for norm in norms}) == 3
    assert structure_of(torch.nn.LayerNorm(8)) == structure_of(norms[0])
