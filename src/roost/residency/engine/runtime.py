"""Which component is on the device at each moment of a pipeline's call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from roost.facts.stage import StageKey, stage_of
from roost.plan import ComponentPlan
from roost.plan.revision import revised
from roost.residency.engine.component import HeldComponent
from roost.residency.engine.eviction import Activations, HostTurns, Used, UseSequence
from roost.residency.engine.guards import Inference, OneThread, check_held, weights_of
from roost.residency.engine.ladder import (
    acquire_with_less,
    fit_blocks,
    leave_between_stages,
    may_leave,
    remedy_for,
    stream_blocks,
    tile_decode,
)
from roost.residency.engine.nan_outputs import NanOutputs, warn_of_nan
from roost.residency.engine.rerun import MemoryShortage, RerunState, run_elastically
from roost.residency.engine.stages import StageRecorder
from roost.residency.weights.transfers import Transfers

# (component, method, args, kwargs) of a call that a pipeline makes, before it runs
Observer = Callable[[str, str, tuple[Any, ...], dict[str, Any]], None]


class Runtime:
    """Releases and acquires components as calls into them arrive. One thread at a time."""

    def __init__(
        self,
        components: Mapping[str, HeldComponent],
        plans: Mapping[str, ComponentPlan],
        transfers: Transfers,
        stages: StageRecorder,
    ) -> None:
        self.components, self.stages = components, stages
        self.observer: Observer | None = None
        # Around what a component itself does in an outermost call
        self.around_calls: Callable[[], AbstractContextManager[object]] = transfers.device.counting_activations
        self.gate: Callable[[Used], None] | None = None  # may refuse a use, by raising, before anything moves
        self.before_call: Callable[[], None] = lambda: None  # may refuse an outermost call, by raising
        self.on_eviction: Callable[[HeldComponent], None] = lambda component: None
        # Switches a component's tiling on; None where no bits may change
        self.tile: Callable[[HeldComponent], None] | None = None
        # At the end of a call, which components gave it
        self.on_nan: Callable[[tuple[str, ...]], object] = warn_of_nan
        self._inference, self.nan_outputs = Inference(), NanOutputs(plans)
        self._plans, self._transfers, self._device = plans, transfers, transfers.device
        self.host_turns = HostTurns((), components)
        self._sequence, self._activations = self._nothing_learnt()
        self._current: HeldComponent | None = None
        self._stage: StageKey | None = None  # the current component's
        self._short: set[str] = set()  # components in whose calls memory ran out: nothing comes ahead in those
        self._room_ahead = True  # for the next component, as far as is known in this call
        self._one_thread = OneThread()
        for component in components.values():
            component.place_again = self.place

    def call(
        self, component: HeldComponent, method: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Runs one call into ``component`` with its weights where they must be."""
        with self._one_thread.entered():
            if component.depth:  # a component calling itself, such as forward from generate
                return call(*args, **kwargs)
            where = f"{self.stages.text_of(self._stage_of(component, method))} ({component.name})"
            released: set[str] = set()
            return run_elastically(
                lambda: self._outermost(component, method, call, args, kwargs),
                RerunState(component.attributes, self._device.device, args, kwargs),
                lambda: self.step_down(component, released) or self._tile(component, method),
                self._transfers,
                MemoryShortage(where, self._device, lambda: remedy_for(component)),
            )

    def place(self, component: HeldComponent) -> None:
        """Puts a resident component, whose weights changed, onto the device again, with less beside it if need be."""
        released: set[str] = set()
        shortage = MemoryShortage(f"placing {component.name}", self._device, lambda: remedy_for(component))
        state = RerunState((), self._device.device, (), {})
        run_elastically(component.place, state, lambda: self.step_down(component, released), self._transfers, shortage)

    def switch_to(self, component: HeldComponent, method: str) -> None:
        """Makes ``component`` ready, after releasing others as far as memory asks for it."""
        if self.gate is not None:
            self.gate(component)
        stage = self._stage_of(component, method)
        if component.active and self.stages.is_open(stage):
            return
        with self._device.engine_work():
            self._begin_stage(component, stage)

    def _stage_of(self, component: Used, method: str) -> StageKey:
        return stage_of(component.name, self._plans[component.name].kind, method)

    def _begin_stage(self, component: HeldComponent, stage: StageKey) -> None:
        self._open_stage(component, stage)
        self._current = component
        # What is left to compute must not run while masters come: their time is left out of a step's.
        if component.late:
            self._device.synchronize()
        self.host_turns.begin(component)
        self._make_room(component)
        self._device.reset_peak()
        acquire_with_less(component, self.step_down, self._transfers)
        self._activations.begin(stage)

    def _open_stage(self, component: Used, stage: StageKey) -> None:
        self._note_activations()
        self.stages.begin(stage)
        self._sequence.use(component)
        self._stage = stage

    def begin_apart(self, component: Used, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a call into a component that moves itself: its stage, in which nobody else needs to be there."""
        if self.gate is not None:
            self.gate(component)
        stage = self._stage_of(component, method)
        if not self.stages.is_open(stage):
            with self._device.engine_work():
                self._open_stage(component, stage)
                self.host_turns.reach(component)
                for each in self._idle(None):
                    each.release()
                self._device.reset_peak()
        if self.observer is not None:
            self.observer(component.name, method, args, kwargs)

    def enter_unit(self, component: HeldComponent, unit: str) -> None:
        """Before the forward of a block, or of a module outside all blocks."""
        if not component.depth:
            component.refresh()
        if not component.active:
            self.switch_to(component, "forward")
        component.running.enter(unit)

    def leave_unit(self, component: HeldComponent, unit: str) -> None:
        """After such a forward; while the copy lane is idle, a unit of the next component comes ahead."""
        component.running.leave(unit)
        if component.quiet and component is self._current and self._room_ahead:
            self._drip(component)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Of calls inside it, nothing stays on the device and nothing is learnt, but what they gave up for good."""
        learnt, on_nan = (self._sequence, self._activations), self.on_nan
        (self._sequence, self._activations), self.on_nan = self._nothing_learnt(), lambda components: None
        try:
            with self.host_turns.not_now():
                yield
        finally:
            self.end_call()
            for component in self.components.values():
                component.release()
            self._device.trim()
            (self._sequence, self._activations), self.on_nan = learnt, on_nan

    def end_call(self) -> None:
        """At the end of a pipeline's call."""
        with self._one_thread.entered(), self._device.engine_work():
            self._note_activations()
            self._sequence.end()
            self.stages.finish()
            nan = self.nan_outputs.take()
            if nan:
                self.on_nan(nan)
            self._device.forget_activations()  # what a call returns is its caller's
            for component in self.components.values():
                component.rest()

    def step_down(self, component: HeldComponent | None = None, released: set[str] | None = None) -> str | None:
        """Gives up device memory for ``component`` (the current one), the cheapest first; says what, None at the end.

        First idle components, each at most once where ``released`` remembers them, then the component's own resident
        blocks and slots, then components that were to stay; at last a component that is there as a whole streams.
        """
        component = component or self._current
        released = set() if released is None else released
        idle = self._sequence.furthest(each for each in self._idle(component) if each.name not in released)
        if idle is not None:
            released.add(idle.name)
            idle.plan = revised(idle.plan, linger=False)
            idle.release()
            return f"{idle.name}: no longer kept on the device between its stages"
        if component is None:
            return None
        self._short.add(component.name)
        return component.step_down() or self._evict(component) or self._stream(component)

    def _evict(self, component: HeldComponent) -> str | None:
        """Makes another component leave that was to stay; from now on it is there for its stages only."""
        others = [each for each in self.components.values() if each is not component and not each.depth]
        leaving = self._sequence.furthest(each for each in others if each.resident and each.present and may_leave(each))
        if leaving is None:
            return None
        said = leave_between_stages(leaving)
        self.on_eviction(leaving)
        return said

    def _stream(self, component: HeldComponent) -> str | None:
        was_resident = component.resident
        said = stream_blocks(component)
        if said is not None and was_resident:
            self.on_eviction(component)
        return said

    def _tile(self, component: HeldComponent, method: str) -> str | None:
        """What is left where nothing can leave the device: a decode in tiles, if its other bits are allowed."""
        if self.tile is None or self._stage_of(component, method).phase != "decode":
            return None
        said = tile_decode(component)
        if said is not None:
            self.tile(component)
        return said

    def _outermost(
        self, component: HeldComponent, method: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """One attempt at an outermost call."""
        self.before_call()
        self._room_ahead = True
        check_held(component)
        inference = self._inference.around(component, args, kwargs)
        whole = False
        component.refresh()
        self.switch_to(component, method)
        if self.observer is not None:
            self.observer(component.name, method, args, kwargs)
        component.begin(method)
        component.depth += 1
        try:
            reads = self._device.checking_reads(component.name, weights_of(component))
            with inference, self.around_calls(), reads:
                result = call(*args, **kwargs)
            self.nan_outputs.look(component.name, result)
            whole = True
            return result
        finally:
            component.depth -= 1
            component.end(whole=whole)

    def _idle(self, component: HeldComponent | None) -> list[HeldComponent]:
        others = (each for each in self.components.values() if each is not component)
        return [each for each in others if each.present and not each.depth and not each.resident]

    def _make_room(self, component: HeldComponent) -> None:
        """Releases what the plan's baseline must not keep, and then what doesn't fit, furthest next use first."""
        activations = self._activations.of(self._stage)
        for each in self._idle(component):
            # Before a component's first stage is over nobody knows what its activations need.
            unknown = activations is None and not each.plan.linger
            if unknown or each.plan.strategy == "component-offload":
                each.release()
        if component.active:
            return
        reserve = activations or 0
        while component.stage_bytes + reserve > self._free_bytes(component):
            idle = self._sequence.furthest(self._idle(component))
            if idle is None:
                break
            idle.release()
        fit_blocks(component, self._free_bytes(component) - reserve, self._transfers)

    def _drip(self, component: HeldComponent) -> None:
        activations = self._activations.of(self._stage)
        following = self._sequence.next_after(component, self.components)
        if activations is None or following is None or component.name in self._short:
            return
        there = following.active or following.resident or following.depth or following.all_ahead
        if there or following.late or following.plan.strategy == "component-offload":  # the baseline does nothing ahead
            return
        self._room_ahead = following.largest_bytes + activations <= self._device.free_bytes
        if self._room_ahead:
            with self._device.engine_work():
                following.acquire_ahead()

    def _note_activations(self) -> None:
        self._activations.end()
        self._current = self._stage = None

    def _nothing_learnt(self) -> tuple[UseSequence, Activations]:
        apart = (name for name in self._plans if name not in self.components)
        return UseSequence((*self.components, *apart)), Activations(self._device, lambda: self.weights_bytes)

    @property
    def weights_bytes(self) -> int:
        """Weights on the device now, slots included."""
        return sum(each.device_bytes for each in self.components.values())

    def _free_bytes(self, component: HeldComponent) -> int:
        return self._device.free_bytes + component.device_bytes
