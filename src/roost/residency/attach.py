"""Putting a plan in force on a pipeline, and taking it off."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from roost.plan import PlanDocument
from roost.residency.accelerator import Accelerator
from roost.residency.component import HeldComponent
from roost.residency.hooks import hook_component, hook_pipeline
from roost.residency.matching import check_components, check_free, check_strategies, held_modules
from roost.residency.memory_errors import out_of_memory_in
from roost.residency.runtime import Runtime
from roost.residency.stages import OnEvent, StageRecord, StageRecorder


class Held:
    """A pipeline that a plan holds until ``close``; a context manager.

    Call ``pipeline`` as ever: its weights are where the plan wants them, and inputs follow.
    """

    def __init__(
        self,
        pipeline: Any,
        plan: PlanDocument,
        components: Mapping[str, HeldComponent],
        accelerator: Accelerator,
        on_event: OnEvent | None = None,
    ) -> None:
        self.pipeline, self.plan, self.accelerator = pipeline, plan, accelerator
        self.changes: list[str] = []  # where the run deviates from the plan, in words
        self.recorder = StageRecorder(accelerator, on_event)
        self.runtime = Runtime(components, plan.components, accelerator, self.recorder)
        with ExitStack() as undo:
            for component in components.values():
                hook_component(component, self.runtime, accelerator.device, undo)
            hook_pipeline(pipeline, self.runtime, undo)
            self._undo = undo.pop_all()

    @property
    def stages(self) -> tuple[StageRecord, ...]:
        """The stages of the latest call, as far as they have ended."""
        return tuple(self.recorder.records)

    def close(self) -> None:
        """Takes everything off: no hook, wrapper or device copy remains, and the weights are in host memory."""
        try:
            self._undo.close()
        finally:
            for component in self.runtime.components.values():
                component.restore()

    def abandon(self) -> None:
        """Takes hooks and wrappers off a pipeline that is used no more: its weights stay where they are.

        ``close`` would copy resident weights back, for which the host may lack the memory.
        """
        self._undo.close()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def hold(pipeline: Any, plan: PlanDocument, accelerator: Accelerator, on_event: OnEvent | None = None) -> Held:
    """Attaches ``plan`` to a live diffusers pipeline; close what it returns, or use it in a ``with``.

    Raises PlanMismatch when the pipeline isn't the one that the plan describes, and OutOfMemory when its resident
    weights exceed the budget; the pipeline is then as it was.
    """
    check_strategies(plan)
    modules = held_modules(pipeline)
    check_free(pipeline, modules)
    check_components(plan, modules)
    components = {
        name: HeldComponent(name, modules[name], plan.components[name], accelerator) for name in plan.load_order
    }
    with ExitStack() as undo:
        for component in components.values():
            undo.callback(component.restore)
            with out_of_memory_in(f"placing {component.name}", accelerator):
                component.place()
        held = Held(pipeline, plan, components, accelerator, on_event)
        undo.pop_all()
    return held
