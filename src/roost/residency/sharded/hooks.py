"""What tells the runtime of calls into sharded components; their weights are FSDP's business alone."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

from roost.pipelines.internals.of_accelerate import HOOK
from roost.residency.engine.instance_attributes import set_attribute
from roost.residency.engine.runtime import Runtime
from roost.residency.sharded.component import ShardedComponent
from roost.residency.weights.foreign import ExecutionDevice


def hook_calls(component: ShardedComponent, runtime: Runtime, device: torch.device, undo: ExitStack) -> None:
    """Has each call of the component be a stage, begun before FSDP gathers the first weights."""

    def before(_module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        runtime.begin_apart(component, "forward", args, kwargs)

    def after(_module: object, _args: object, output: object) -> None:
        runtime.end_apart(component, output)

    set_attribute(component.module, HOOK, ExecutionDevice(device), undo)
    undo.callback(component.module.register_forward_pre_hook(before, prepend=True, with_kwargs=True).remove)
    undo.callback(component.module.register_forward_hook(after).remove)
