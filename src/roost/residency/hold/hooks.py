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
from roost.pipelines.internals.of_torch import CONVERT, compiled_call_of, conversion_of
from roost.residency.engine.component import HeldComponent
from roost.residency.engine.guards import check_components_stay, forbid_moves, guard_component
from roost.residency.engine.instance_attributes import set_attribute, set_attributes
from roost.residency.engine.runtime import Runtime
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


class _BlockHooks:
    """Brings a block's weights in before its forward and lets them go after it.

    Compiled code must not trace that: it would bake one block's addresses in. Hooks that are kept out of it cost each
    eager forward something too, so only a compiled block has those; elsewhere the hooks themselves may be traced, as
    parts of something larger that is compiled, and what they would do is not.
    """

    def __init__(self, component: HeldComponent, runtime: Runtime, name: str) -> None:
        self._component, self._runtime, self._name = component, runtime, name
        self._block = component.module.get_submodule(name)
        self._removers: list[Callable[[], None]] = []

    def put(self, undo: ExitStack) -> None:
        """Puts the hooks onto the block, and other ones when it is compiled later."""
        undo.callback(self._remove)
        self._register()
        compile_block = self._block.compile

        def compiled(*args: Any, **kwargs: Any) -> None:
            compile_block(*args, **kwargs)
            self._register()

        set_attribute(self._block, "compile", compiled, undo)

    def _register(self) -> None:
        self._remove()
        before, after = self._before, self._after
        if compiled_call_of(self._block) is not None:
            before, after = torch.compiler.disable(before), torch.compiler.disable(after)  # type: ignore[no-untyped-call]
        self._removers.append(self._block.register_forward_pre_hook(before, prepend=True).remove)
        self._removers.append(self._block.register_forward_hook(after, always_call=True).remove)

    def _remove(self) -> None:
        while self._removers:
            self._removers.pop()()

    def _before(self, _module: object, _args: object) -> None:
        if torch.compiler.is_compiling():
            self._enter()
        else:
            self._runtime.enter_unit(self._component, self._name)

    def _after(self, _module: object, _args: object, _output: object) -> None:
        if torch.compiler.is_compiling():
            self._leave()
        else:
            self._runtime.leave_unit(self._component, self._name)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _enter(self) -> None:
        self._runtime.enter_unit(self._component, self._name)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _leave(self) -> None:
        self._runtime.leave_unit(self._component, self._name)


def _hook_blocks(component: HeldComponent, runtime: Runtime, undo: ExitStack) -> None:
    for name in component.rungs.names:
        _BlockHooks(component, runtime, name).put(undo)


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
