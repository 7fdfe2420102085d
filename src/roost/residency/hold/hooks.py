"""Everything that is put onto a user's modules and pipeline, each with what takes it off again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from roost.blocks import TRUNK, home_unit
from roost.errors import PlanMismatch
from roost.pipelines.entries import wrap_entries
from roost.pipelines.internals.of_accelerate import HOOK
from roost.pipelines.internals.of_torch import CONVERT, conversion_of
from roost.residency.engine.component import HeldComponent
from roost.residency.engine.guards import check_components_stay, forbid_moves, guard_component
from roost.residency.engine.instance_attributes import set_attribute, set_attributes
from roost.residency.engine.runtime import Runtime
from roost.residency.hold.block_hooks import BlockHooks
from roost.residency.weights.foreign import ExecutionDevice


def hook_component(component: HeldComponent, runtime: Runtime, device: torch.device, undo: ExitStack) -> None:
    """Puts the plan in force for one component; ``undo`` takes it off."""
    module = component.module
    set_attribute(module, HOOK, ExecutionDevice(device), undo)
    _intercept_conversion(component, undo)
    guard_component(component, undo)
    for switch in ("tiling", "slicing"):
        if getattr(component.plan, switch):
            switch_on(module, switch, undo)
    # A component that is compiled as a whole runs as it is: the engine's work on the way can't be traced.
    call = torch.compiler.disable(runtime.call)  # type: ignore[no-untyped-call]
    undo.callback(wrap_entries(module, functools.partial(call, component)))
    if not component.resident:
        hook_movement(component, runtime, undo)


def hook_movement(component: HeldComponent, runtime: Runtime, undo: ExitStack) -> None:
    """Brings the weights of a component that is not always there in where they are used."""
    _hook_blocks(component, runtime, undo)
    _hook_weight_owners(component, runtime, undo)


def hook_pipeline(pipeline: Any, runtime: Runtime, undo: ExitStack) -> None:
    """Learns when a call ends, and refuses what would move weights past the plan."""
    free_hooks = getattr(pipeline, "maybe_free_model_hooks", None)
    if callable(free_hooks):

        def at_end_of_call() -> None:
            free_hooks()
            runtime.end_call()

        set_attribute(pipeline, "maybe_free_model_hooks", at_end_of_call, undo)
    runtime.before_call = functools.partial(check_components_stay, pipeline, runtime.components)
    forbid_moves(pipeline, undo)


def _hook_blocks(component: HeldComponent, runtime: Runtime, undo: ExitStack) -> None:
    for name in component.rungs.names:
        BlockHooks(component, runtime, name).put(undo)


def _hook_weight_owners(component: HeldComponent, runtime: Runtime, undo: ExitStack) -> None:
    """Brings in what lies outside all blocks where it is used past its component's forward."""

    def before(_module: object, _args: object) -> None:
        runtime.enter_unit(component, TRUNK)

    def after(_module: object, _args: object, _output: object) -> None:
        runtime.leave_unit(component, TRUNK)

    enter, leave = torch.compiler.disable(before), torch.compiler.disable(after)  # type: ignore[no-untyped-call]
    blocks = frozenset(component.rungs.names)
    for name, module in component.module.named_modules():
        if home_unit(name, blocks) == TRUNK and _owns_tensors(module):
            undo.callback(module.register_forward_pre_hook(enter, prepend=True).remove)
            undo.callback(module.register_forward_hook(leave, always_call=True).remove)


def _owns_tensors(module: torch.nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False))


def _intercept_conversion(component: HeldComponent, undo: ExitStack) -> None:
    """Does a change of dtype (SDXL's VAE, twice a call) on host weights; a move to a device is the plan's business."""
    module = component.module
    to: Callable[..., object] = module.to

    def to_dtype(*args: Any, **kwargs: Any) -> torch.nn.Module:
        kept = [each.dtype if isinstance(each, torch.Tensor) else each for each in args]
        kept = [each for each in kept if isinstance(each, torch.dtype)]
        for name in ("device", "non_blocking", "copy"):
            kwargs.pop(name, None)
        wanted = [*kept, *(value for value in kwargs.values() if value is not None)]
        if not any(value != each.dtype for value in wanted for each in module.parameters() if each.is_floating_point()):
            return module
        if len(wanted) == 1 and isinstance(wanted[0], torch.dtype):
            component.recast(wanted[0], lambda: to(wanted[0]))
        else:
            to(*kept, **kwargs)
        return module

    set_attributes(((part, CONVERT, _converting(component, part)) for part in module.modules()), undo)
    set_attribute(module, "to", to_dtype, undo)


def _converting(component: HeldComponent, part: torch.nn.Module) -> Callable[..., torch.nn.Module]:
    apply: Callable[..., object] = conversion_of(part)

    def convert(change: Callable[..., object], recurse: bool = True) -> torch.nn.Module:
        component.convert(lambda: apply(change, recurse))
        return part

    return convert


def switch_on(vae: Any, switch: str, undo: ExitStack) -> None:
    """A VAE's ``tiling`` or ``slicing``, where it is off."""
    enable = getattr(vae, f"enable_{switch}", None)
    if enable is None:
        raise PlanMismatch(
            f"{type(vae).__name__} has no {switch}, which the plan asks for; plan again without {switch}."
        )
    if not getattr(vae, f"use_{switch}", False):
        enable()
        undo.callback(getattr(vae, f"disable_{switch}"))
