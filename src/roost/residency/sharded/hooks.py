"""What tells the runtime of calls into sharded components; their weights are FSDP's business alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from roost.pipelines.entries import entry_methods
from roost.pipelines.internals.of_accelerate import HOOK
from roost.residency.engine.instance_attributes import set_attribute, set_attributes
from roost.residency.engine.runtime import Runtime
from roost.residency.sharded.component import ShardedComponent
from roost.residency.weights.foreign import ExecutionDevice


def hook_calls(component: ShardedComponent, runtime: Runtime, device: torch.device, undo: ExitStack) -> None:
    """Has each call of the component be a stage, begun before FSDP gathers the first weights."""
    module, calls = component.module, _Calls(component, runtime)
    set_attribute(module, HOOK, ExecutionDevice(device), undo)
    undo.callback(module.register_forward_pre_hook(calls.before_forward, prepend=True, with_kwargs=True).remove)
    undo.callback(module.register_forward_hook(calls.after_forward).remove)
    others = [each for each in entry_methods(module) if each != "forward"]
    set_attributes(((module, each, functools.partial(calls.run, each, getattr(module, each))) for each in others), undo)


class _Calls:
    """The calls of one component; what it calls of itself meanwhile is part of the outermost."""

    def __init__(self, component: ShardedComponent, runtime: Runtime) -> None:
        self._component, self._runtime = component, runtime
        self._depth = 0

    def run(self, method: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """One call of an entry that isn't its forward."""
        self._begin(method, args, kwargs)
        try:
            result = call(*args, **kwargs)
        finally:
            self._depth -= 1
        self._end(result)
        return result

    def before_forward(self, _module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._begin("forward", args, kwargs)

    def after_forward(self, _module: object, _args: object, output: object) -> None:
        self._depth -= 1
        self._end(output)

    def _begin(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._depth:
            self._runtime.begin_apart(self._component, method, args, kwargs)
        self._depth += 1

    def _end(self, result: object) -> None:
        if not self._depth:
            self._runtime.nan_outputs.look(self._component.name, result)
