"""Putting a plan in force on a pipeline, and taking it off."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from roost.errors import DeviceLost
from roost.pipelines.attention import use_backend
from roost.pipelines.step_caches import use_cache
from roost.plan import PlanDocument
from roost.residency.device.interface import Device
from roost.residency.engine.component import HeldComponent
from roost.residency.engine.initial_placement import Placer
from roost.residency.engine.ladder import demotions_of
from roost.residency.engine.runtime import Runtime
from roost.residency.engine.stages import OnEvent, StageRecord, StageRecorder
from roost.residency.hold.away import AwayComponent
from roost.residency.hold.hooks import hook_component, hook_movement, hook_pipeline, switch_on
from roost.residency.hold.live_modules import check_components, check_strategies, held_modules
from roost.residency.sharded.component import ShardedComponent
from roost.residency.sharded.hooks import hook_calls
from roost.residency.weights.foreign import check_free
from roost.residency.weights.fp8 import check_storage
from roost.residency.weights.obstacles import check_obstacles, foreign_weight
from roost.residency.weights.transfers import Transfers

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Components that the runtime doesn't move: ``away`` in another process, by name, or sharded over several."""

    away: Mapping[str, AwayComponent] = field(default_factory=dict)
    sharded: Sequence[ShardedComponent] = ()


class Held:
    """A pipeline that a plan holds until ``close``; a context manager.

    Call ``pipeline`` as ever: its weights are where the plan wants them, and inputs follow. Of sharded components only
    their calls are heard of; those that are ``away`` are another process's.
    """

    def __init__(
        self,
        pipeline: Any,
        plan: PlanDocument,
        components: Mapping[str, HeldComponent],
        transfers: Transfers,
        on_event: OnEvent | None = None,
        beside: Beside | None = None,
    ) -> None:
        beside = beside or Beside()
        self.away = beside.away
        self.pipeline, self.plan, self.device = pipeline, plan, transfers.device
        self.transfers = transfers
        self.recorder = StageRecorder(
            transfers.device, on_event, {name: each.kind for name, each in plan.components.items()}
        )
        self.runtime = Runtime(components, plan.components, transfers, self.recorder)
        self._afterwards, self._undo = ExitStack(), ExitStack()
        self._weights = ExitStack()
        self._weights.callback(transfers.close)
        for component in components.values():
            self._weights.callback(component.restore)
        with ExitStack() as undo:
            modules = {each.name: each.module for each in components.values()} | {
                each.name: each.module for each in beside.sharded
            }
            for name, module in modules.items():
                if plan.attention is not None and plan.components[name].kind == "dit":
                    use_backend(module, plan.attention, undo)
                if plan.cache is not None and plan.components[name].kind == "dit":
                    use_cache(module, plan.cache, pipeline, undo)
            for component in components.values():
                hook_component(component, self.runtime, transfers.device.device, undo)
            for sharded in beside.sharded:
                hook_calls(sharded, self.runtime, transfers.device.device, undo)
            hook_pipeline(pipeline, self.runtime, undo)
            self.runtime.on_eviction = lambda component: hook_movement(component, self.runtime, self._undo)
            self.runtime.tile = lambda component: switch_on(component.module, "tiling", self._undo)
            self._undo = undo.pop_all()

    @property
    def stages(self) -> tuple[StageRecord, ...]:
        """The stages of the latest call, as far as they have ended."""
        return tuple(self.recorder.records)

    @property
    def changes(self) -> list[str]:
        """Where the run deviates from the plan, in words."""
        return self.transfers.changes

    @property
    def demotions(self) -> dict[str, dict[str, object]]:
        """The plan's fields that had to be lowered because memory ran out, by component."""
        return demotions_of(self.runtime.components.values())

    def then(self, afterwards: Callable[[], None]) -> None:
        """Has ``close`` call ``afterwards`` when everything is off."""
        self._afterwards.callback(afterwards)

    def close(self) -> None:
        """Takes everything off: no hook, wrapper, thread or device copy remains; the weights are in host memory."""
        with self.device.engine_work(), self._afterwards, self._weights:
            self._undo.close()
        _log.info("%s is let go", type(self.pipeline).__name__)

    def abandon(self) -> None:
        """Takes hooks and wrappers off a pipeline that is used no more: its weights stay where they are.

        ``close`` would copy resident weights back, for which the host may lack the memory.
        """
        with self.device.engine_work(), self._afterwards:
            self._undo.close()
            self.transfers.close()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        with suppress(torch.AcceleratorError) if isinstance(error, DeviceLost) else nullcontext():
            self.close()


def hold(pipeline: Any, plan: PlanDocument, device: Device, on_event: OnEvent | None = None) -> Held:
    """Attaches ``plan`` to a live diffusers pipeline; close what it returns, or use it in a ``with``.

    Raises PlanMismatch when the pipeline isn't the one that the plan describes, and OutOfMemory when its resident
    weights exceed the budget and can't give way; the pipeline is then as it was.
    """
    modules = held_modules(pipeline)
    check_storage(plan)
    check_strategies(plan, modules)
    check_free(pipeline, modules)
    check_components(plan, modules)
    check_obstacles(plan, modules)
    transfers = Transfers.under(plan, device)
    placer = Placer(transfers)
    components: dict[str, HeldComponent] = {}
    with ExitStack() as undo:
        moved_whole = undo.enter_context(ExitStack())
        undo.callback(transfers.close)
        for name in plan.load_order:
            if plan.components[name].strategy == "fsdp":
                continue
            if foreign_weight(modules[name]) is not None:  # resident, and only its own class can move it
                moved_whole.callback(modules[name].to, "cpu")
                placer.place_whole(name, modules[name])
                continue
            components[name] = HeldComponent(name, modules[name], plan.components[name], transfers)
            undo.callback(components[name].restore)
            placer.place(components[name])
        held = Held(pipeline, plan, components, transfers, on_event)
        held.then(moved_whole.pop_all().close)
        _log.info(
            "%s is held: %s", type(pipeline).__name__, {name: each.plan.strategy for name, each in components.items()}
        )
        undo.pop_all()
    return held
