"""Everything that is put onto a user's modules and pipeline, each with what takes it off again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from accelerate.hooks import ModelHook

from roost.errors import PlanMismatch
from roost.pipelines.entries import wrap_entries
from roost.residency.census import TRUNK, home_unit
from roost.residency.component import HeldComponent
from roost.residency.guards import forbid_moves, guard_component
from roost.residency.instance_attributes import set_attribute
from roost.residency.runtime import Runtime


class _ExecutionDevice(ModelHook):  # type: ignore[misc]  # accelerate has no types
    """Only says where a component runs: pipelines send their inputs there, wherever the weights are parked."""

    def __init__(self, device: torch.device) -> None:
        self.execution_device = device


def hook_component(component: HeldComponent, runtime: Runtime, device: torch.device, undo: ExitStack) -> None:
    """Puts the plan in force for one component; ``undo`` takes it off."""
    module = component.module
    set_attribute(module, "_hf_hook", _ExecutionDevice(device), undo)
    _intercept_conversion(component, undo)
    guard_component(component, undo)
    if component.plan.tiling:
        _enable_tiling(module, undo)
    undo.callback(wrap_entries(module, functools.partial(runtime.call, component)))
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
    forbid_moves(pipeline, undo)


def _uncompiled(hook: Callable[..., None]) -> Callable[..., None]:
    """Kept out of compiled code, which would trace the movement and bake one block's addresses in."""
    disabled: Callable[..., None] = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]
    return disabled


def _hook_blocks(component: HeldComponent, runtime: Runtime, undo: ExitStack) -> None:
    for name in component.rungs.names:
        block = component.module.get_submodule(name)

        def before(_module: object, _args: object, name: str = name) -> None:
            runtime.block_in(component, name)

        def after(_module: object, _args: object, _output: object, name: str = name) -> None:
            runtime.block_out(component, name)

        undo.callback(block.register_forward_pre_hook(_uncompiled(before), prepend=True).remove)
        undo.callback(block.register_forward_hook(_uncompiled(after), always_call=True).remove)


def _hook_weight_owners(component: HeldComponent, runtime: Runtime, undo: ExitStack) -> None:
    """Brings in what is used past its component's forward, and finds blocks that are used past their own.

    The trunk's hooks stay. A block's inner ones go after the first call in which the block ran as a whole.
    """
    inner: dict[str, ExitStack] = {}
    blocks = frozenset(component.rungs.names)
    # Hooks inside a compiled block would break its graph; such a block is only called as a whole.
    compiled = {name for name in blocks if component.module.get_submodule(name)._compiled_call_impl is not None}
    for name, module in component.module.named_modules():
        unit = home_unit(name, blocks)
        if name == unit != TRUNK or unit in compiled or not _owns_tensors(module):
            continue

        def touch(_module: object, _args: object, unit: str = unit) -> None:
            runtime.touch(component, unit)

        remove = module.register_forward_pre_hook(_uncompiled(touch), prepend=True).remove
        undo.callback(remove)
        if unit != TRUNK:
            inner.setdefault(unit, ExitStack()).callback(remove)
    for unit, removers in inner.items():
        component.first_uses.watch(unit, removers.close)


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
        if any(value != each.dtype for value in wanted for each in module.parameters() if each.is_floating_point()):
            to(*kept, **kwargs)
        return module

    for part in module.modules():
        set_attribute(part, "_apply", _converting(component, part), undo)
    set_attribute(module, "to", to_dtype, undo)


def _converting(component: HeldComponent, part: torch.nn.Module) -> Callable[..., torch.nn.Module]:
    apply: Callable[..., object] = part._apply

    def convert(change: Callable[..., object], recurse: bool = True) -> torch.nn.Module:
        component.convert(lambda: apply(change, recurse))
        return part

    return convert


def _enable_tiling(module: torch.nn.Module, undo: ExitStack) -> None:
    tiled: Any = module
    if not hasattr(tiled, "enable_tiling"):
        raise PlanMismatch(f"{type(module).__name__} can't tile, as the plan asks; plan again without tiling.")
    if not getattr(tiled, "use_tiling", False):
        tiled.enable_tiling()
        undo.callback(tiled.disable_tiling)
