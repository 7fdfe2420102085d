"""Which component is on the device at each moment of a pipeline's call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from roost.errors import RoostError
from roost.plan import ComponentPlan
from roost.residency.accelerator import Accelerator
from roost.residency.component import HeldComponent
from roost.residency.memory_errors import out_of_memory_in
from roost.residency.stages import StageRecorder, stage_name

# (component, method, args, kwargs) of a call that a pipeline makes, before it runs
Observer = Callable[[str, str, tuple[Any, ...], dict[str, Any]], None]


class Runtime:
    """Releases and acquires components as calls into them arrive. One thread at a time."""

    def __init__(
        self,
        components: Mapping[str, HeldComponent],
        plans: Mapping[str, ComponentPlan],
        accelerator: Accelerator,
        stages: StageRecorder,
    ) -> None:
        self.components, self.stages = components, stages
        self.observer: Observer | None = None
        self._plans, self._accelerator = plans, accelerator
        self._thread: int | None = None

    def call(
        self, component: HeldComponent, method: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Runs one call into ``component`` with its weights where they must be."""
        if component.depth:  # a component calling itself, such as forward from generate
            return self._inner(component, call, args, kwargs)
        where = f"{stage_name(component.name, method, self._plans)} ({component.name})"
        with out_of_memory_in(where, self._accelerator):
            self._refuse_second_thread()
            self.switch_to(component, method)
            if self.observer is not None:
                self.observer(component.name, method, args, kwargs)
            try:
                return self._inner(component, call, args, kwargs)
            finally:
                component.heal()

    def switch_to(self, component: HeldComponent, method: str) -> None:
        """Makes ``component`` ready, after releasing others by their policy."""
        stage = stage_name(component.name, method, self._plans)
        if component.active and self.stages.is_open(stage, component.name):
            return
        self.stages.begin(stage, component.name)
        self._make_room(component)
        self._accelerator.reset_peak()
        component.acquire()

    def touch(self, component: HeldComponent, unit: str) -> None:
        """Before a module outside any block, or outside its block's forward, uses its weights."""
        if not component.active:
            self.switch_to(component, "forward")
        component.keep(unit)

    def block_in(self, component: HeldComponent, block: str) -> None:
        """Before a block's forward."""
        if not component.active:
            self.switch_to(component, "forward")
        component.block_in(block)

    def end_call(self) -> None:
        """At the end of a pipeline's call."""
        self.stages.finish()

    def _inner(
        self, component: HeldComponent, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        component.depth += 1
        try:
            return call(*args, **kwargs)
        finally:
            component.depth -= 1

    def _make_room(self, component: HeldComponent) -> None:
        idle = [each for each in self.components.values() if each is not component and each.active]
        idle = [each for each in idle if not each.depth and not each.resident]
        for each in idle:
            if not each.plan.linger:
                each.release()
        needed = component.missing_bytes()
        for each in idle:
            if each.plan.linger and needed > self._accelerator.budget_bytes - self._accelerator.used_bytes:
                each.release()

    def _refuse_second_thread(self) -> None:
        if not any(each.depth for each in self.components.values()):
            self._thread = threading.get_ident()
        elif self._thread != threading.get_ident():
            raise RoostError("another thread is running this pipeline; call it from one thread at a time.")
