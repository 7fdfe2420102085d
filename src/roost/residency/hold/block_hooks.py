"""The hooks that a plan puts onto a block."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from roost.pipelines.internals.of_diffusers import (
    REGISTRY,
    forward_before_hooks,
    may_skip,
    put_before_hooks,
    replace_forward,
)
from roost.pipelines.internals.of_torch import compiled_call_of
from roost.residency.engine.component import HeldComponent
from roost.residency.engine.instance_attributes import set_attribute
from roost.residency.engine.runtime import Runtime


class BlockHooks:
    """Brings a block's weights in before its forward and lets them go after it.

    Compiled code must not trace that: it would bake one block's addresses in. Hooks that are kept out of it cost each
    eager forward something too, so only a compiled block has those; elsewhere the hooks themselves may be traced, as
    parts of something larger that is compiled, and what they would do is not.

    Hooks of diffusers may skip the block's own forward, as ``FirstBlockCache`` does. Under those the weights come in
    right before that forward, so that a block that is skipped costs no copy. They may come and go at any time.
    """

    def __init__(self, component: HeldComponent, runtime: Runtime, name: str) -> None:
        self._component, self._runtime, self._name = component, runtime, name
        self._block = component.module.get_submodule(name)
        self._removers: list[Callable[[], None]] = []
        self._within = False  # the weights come in within the hooks of diffusers
        self._guarded: Callable[..., Any] | None = None  # what those call, and below what that calls
        self._own: Callable[..., Any] | None = None

    def put(self, undo: ExitStack) -> None:
        """Puts the hooks onto the block, and other ones when it is compiled later."""
        undo.callback(self._remove)
        undo.callback(self._unguard)
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
            return
        self._within = self._is_skippable()
        if not self._within:
            self._runtime.enter_unit(self._component, self._name)

    def _after(self, _module: object, _args: object, _output: object) -> None:
        if torch.compiler.is_compiling():
            self._leave()
        elif not self._within:
            self._runtime.leave_unit(self._component, self._name)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _enter(self) -> None:
        self._runtime.enter_unit(self._component, self._name)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _leave(self) -> None:
        self._runtime.leave_unit(self._component, self._name)

    def _is_skippable(self) -> bool:
        """Whether hooks decide if the block runs, which from now on bring its weights in when it does."""
        registry = vars(self._block).get(REGISTRY)
        if registry is None or not may_skip(registry) or compiled_call_of(self._block) is not None:
            return False
        own = forward_before_hooks(registry)
        if own is not self._guarded:
            self._unguard()
            self._own, self._guarded = own, self._guard(own)
            put_before_hooks(registry, self._guarded)
        return True

    def _guard(self, own: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(own)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling() or not self._within:
                return own(*args, **kwargs)
            self._runtime.enter_unit(self._component, self._name)
            try:
                return own(*args, **kwargs)
            finally:
                self._runtime.leave_unit(self._component, self._name)

        return guarded

    def _unguard(self) -> None:
        """Puts the block's own forward back to where the guarded one is now."""
        guarded, self._guarded, self._within = self._guarded, None, False
        if guarded is None:
            return
        attributes = vars(self._block)
        if attributes.get("forward") is guarded:  # the hooks were taken off
            attributes["forward"] = self._own
        if REGISTRY in attributes:
            replace_forward(attributes[REGISTRY], guarded, self._own)
