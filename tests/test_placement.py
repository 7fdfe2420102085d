"""Where weights and inputs are when a component computes, on a device that can't be mixed with the host."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from fake_accelerator import NAME, FakeAccelerator, fake_accelerator
from live_pipelines import STRATEGIES, digest_without_plan, own_pipeline
from plans import plan_for
from roost.pipelines.entries import wrap_entries
from roost.residency.engine import component, on_device
from roost.residency.engine.runtime import Runtime
from roost.residency.hold.attach import Held, hold
from roost.residency.weights.objects import parameter_tables

NAMES = ("wan2.2", "flux", "sdxl")
Entry = tuple[str, str, Any, Any]


@functools.cache
def recorded(name: str) -> tuple[Any, tuple[Entry, ...]]:
    """A pipeline of family ``name``, and the calls into its components that a generation makes, of each kind two.

    The second one meets what the first has left, as all later ones do.
    """
    pipeline, entries = own_pipeline(name), []

    def around(key: str, method: str, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if not depth and sum((key, method) == each[:2] for each in entries) < 2:
            entries.append((key, method, *copy.deepcopy((args, kwargs))))
        depth.append(key)
        try:
            return call(*args, **kwargs)
        finally:
            depth.pop()

    depth: list[str] = []
    modules = {key: each for key, each in pipeline.components.items() if isinstance(each, torch.nn.Module)}
    undoers = [wrap_entries(each, functools.partial(around, key)) for key, each in modules.items()]
    digest_without_plan(pipeline, name)
    for undo in undoers:
        undo()
    return pipeline, tuple(entries)


def play(held: Held, entries: tuple[Entry, ...], move: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """The calls again, with their inputs where ``move`` puts them; results must be on the device."""
    for name, method, args, kwargs in entries:
        moved, named = tree_map_only(torch.Tensor, move, (args, kwargs))
        result = getattr(getattr(held.pipeline, name), method)(*moved, **named)
        leaves = vars(result).values() if hasattr(result, "__dict__") and not isinstance(result, dict) else [result]
        found = {each.device.type for each in tree_leaves(list(leaves)) if isinstance(each, torch.Tensor)}
        assert found <= {NAME}, (name, method, found)


def holding(name: str, strategy: Any, device: FakeAccelerator) -> Held:
    pipeline, _entries = recorded(name)
    return hold(pipeline, plan_for(pipeline, strategy), device)


# Every strategy with one family, each way that weights move with another, and the most calls once; all with --runslow.
TRIED = {
    "wan2.2": tuple(STRATEGIES),
    "flux": ("resident", "snapshot-offload, lingering", "layerwise-offload, half resident"),
    "sdxl": ("layerwise-offload, half resident",),
}
PLACED = [
    pytest.param(name, strategy, marks=() if strategy in TRIED[name] else pytest.mark.slow)
    for name in NAMES
    for strategy in STRATEGIES
]


@pytest.mark.dealt(4)
@pytest.mark.parametrize(("name", "strategy"), PLACED)
def test_every_weight_is_on_the_device_when_it_is_used(name: str, strategy: str) -> None:
    with fake_accelerator() as device, torch.no_grad():
        with holding(name, STRATEGIES[strategy], device) as held:
            assert held.pipeline._execution_device == device.device
            for _ in range(2):
                play(held, recorded(name)[1], device.put)
                held.runtime.end_call()
        assert device.used == 0
        modules = [each for each in held.pipeline.components.values() if isinstance(each, torch.nn.Module)]
        assert {tensor.device.type for each in modules for tensor in each.state_dict().values()} == {"cpu"}


@pytest.mark.parametrize("name", NAMES)
def test_an_input_that_stays_on_the_host_is_noticed(name: str) -> None:
    """Every floating input of a denoiser in turn; those of no dimension may stay, as on CUDA."""
    call = next(each for each in recorded(name)[1] if each[0] in ("transformer", "unet"))
    inputs = [each for each in tree_leaves(call[2:]) if isinstance(each, torch.Tensor)]
    staying = [each for each in inputs if each.is_floating_point() and each.ndim > 1]
    assert staying
    with fake_accelerator() as device, torch.no_grad(), holding(name, "snapshot-offload", device) as held:
        for left in staying:
            with pytest.raises(RuntimeError, match="device"):
                play(held, (call,), functools.partial(move_all_but, left, device))
        play(held, (call,), device.put)


def move_all_but(left: torch.Tensor, device: FakeAccelerator, tensor: torch.Tensor) -> torch.Tensor:
    return device.leave(tensor) if tensor is left else device.put(tensor)


Patch = pytest.MonkeyPatch


def nothing_comes(patch: Patch) -> None:
    patch.setattr(Runtime, "switch_to", lambda *_: None)
    for name in ("enter", "leave", "keep"):
        patch.setattr(on_device.RunningBlocks, name, lambda *_: None)


def what_came_is_not_used(patch: Patch) -> None:
    for module in (component, on_device):
        patch.setattr(module, "settle", lambda unit, transfers: None)


def buffers_stay(patch: Patch) -> None:
    bind_one: Any = parameter_tables.bind_one

    def parameters_only(original: torch.Tensor, view: torch.Tensor) -> None:
        if isinstance(original, torch.nn.Parameter):
            bind_one(original, view)

    patch.setattr(parameter_tables, "bind_one", parameters_only)


@pytest.mark.parametrize("fault", [nothing_comes, what_came_is_not_used, buffers_stay], ids=lambda each: each.__name__)
@pytest.mark.parametrize("name", ["wan2.2", "flux"])
def test_weights_that_stay_on_the_host_are_noticed(
    name: str, fault: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    with fake_accelerator() as device, torch.no_grad(), holding(name, "snapshot-offload", device) as held:
        fault(monkeypatch)
        with pytest.raises(RuntimeError, match="device"):
            play(held, recorded(name)[1], device.put)
        monkeypatch.undo()


def test_without_a_plan_the_pipeline_sends_its_inputs_to_the_host() -> None:
    assert recorded("flux")[0]._execution_device == torch.device("cpu")
