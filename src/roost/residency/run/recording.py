"""What really happened on both lanes of a held pipeline: every call, block and copy, and the memory meanwhile.

Marks are put on the lanes as work is enqueued and read once it is over, so that nothing waits for a measurement.
Without a recording nothing of this runs.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from roost.facts.machine import Lane
from roost.facts.stage import StageKey, stage_of
from roost.pipelines.entries import wrap_entries
from roost.pipelines.internals.of_torch import compiled_call_of
from roost.residency.engine.component import HeldComponent
from roost.residency.hold.attach import Held
from roost.residency.weights.host_masters import HostCopy
from roost.timeline import MemoryLevel, Pass, Slice

# Events that a long run may put on the lanes; what comes after them is not recorded.
_MOST_MARKS = 400_000
_WHOLE_CALL = "whole call"
_OTHER = "other"  # what no component's weights account for: activations, workspaces


@dataclass(frozen=True, slots=True)
class _Span:
    """Something between two marks of one lane."""

    lane: Lane
    component: str
    part: str  # a block or the trunk
    began: Any
    ended: Any
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Call:
    """A call into a component, between two marks of the compute lane."""

    stage: StageKey
    began: Any
    ended: Any


class Recording:
    """Records what a held pipeline does inside the context; ``read`` it afterwards, also after an exception."""

    def __init__(self, held: Held) -> None:
        self._held, self._device = held, held.transfers.device
        self._start = self._device.mark()
        self._calls: list[_Call] = []
        self._parts: list[_Span] = []
        self._levels: list[tuple[Any, dict[str, int], int]] = []
        self._depths: Counter[str] = Counter()
        self._names: dict[int, tuple[HostCopy, str, str]] = {}
        self._undo = ExitStack()

    def __enter__(self) -> Recording:
        for component in self._held.runtime.components.values():
            self._undo.callback(wrap_entries(component.module, functools.partial(self._call, component)))
            for name in component.rungs.names:
                self._watch_block(component, name)
        self._held.transfers.watch = self._copy
        self._undo.callback(setattr, self._held.transfers, "watch", None)
        self._level()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    @property
    def complete(self) -> bool:
        """Whether everything was recorded."""
        return 2 * (len(self._calls) + len(self._parts)) + len(self._levels) < _MOST_MARKS

    def read(self) -> tuple[tuple[Slice, ...], tuple[Pass, ...], tuple[MemoryLevel, ...]]:
        """Slices, passes and levels in the order of their times, in seconds since the recording began."""
        self._device.synchronize()
        slices, passes = list(self._slices()), list(self._passes())
        slices += [
            Slice(lane="compute", component=each.component, part=_WHOLE_CALL, start_s=each.start_s, end_s=each.end_s)
            for each in passes
            if not any(part.component == each.component and part.lane == "compute" for part in slices)
        ]
        return (
            tuple(sorted(slices, key=lambda each: each.start_s)),
            tuple(sorted(passes, key=lambda each: each.start_s)),
            tuple(self._memory()),
        )

    def _call(
        self, component: HeldComponent, method: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """One call into a component; calls inside it are parts of it."""
        if self._depths[component.name] or not self.complete:
            return call(*args, **kwargs)
        stage = stage_of(component.name, self._held.plan.components[component.name].kind, method)
        self._depths[component.name] += 1
        began = self._device.mark()
        try:
            return call(*args, **kwargs)
        finally:
            self._depths[component.name] -= 1
            self._calls.append(_Call(stage, began, self._device.mark()))
            self._level()

    def _watch_block(self, component: HeldComponent, name: str) -> None:
        """Marks around the block's forward, inside the hooks that bring its weights in and let them go."""
        block = component.module.get_submodule(name)
        if compiled_call_of(block) is not None:  # a hook would break its graph
            return
        begun: list[Any] = []

        def before(_module: object, _args: object) -> None:
            if self.complete:
                begun.append(self._device.mark())

        def after(_module: object, _args: object, _output: object) -> None:
            if begun:
                self._parts.append(_Span("compute", component.name, name, begun.pop(), self._device.mark()))
                self._level()

        self._undo.callback(block.register_forward_pre_hook(before).remove)
        self._undo.callback(block.register_forward_hook(after, prepend=True, always_call=True).remove)

    @contextmanager
    def _copy(self, master: HostCopy, size: int) -> Iterator[None]:
        began = self._device.mark("copy") if self.complete else None
        yield
        if began is not None:
            component, unit = self._name_of(master)
            self._parts.append(_Span("copy", component, unit, began, self._device.mark("copy"), size))
            self._level()

    def _name_of(self, master: HostCopy) -> tuple[str, str]:
        """Whose host copy that is; they are made anew when weights change."""
        known = self._names.get(id(master))
        if known is None or known[0] is not master:
            for component in self._held.runtime.components.values():
                for name, unit in component.units.items():
                    if unit.master is not None:
                        self._names[id(unit.master)] = unit.master, component.name, name or "trunk"
            known = self._names.get(id(master), (master, "?", "?"))
        return known[1], known[2]

    def _level(self) -> None:
        """What is allocated now, and the most since the level before."""
        held = {each.name: each.device_bytes for each in self._held.runtime.components.values()}
        self._levels.append((self._device.mark(), held, self._device.take_high_bytes()))

    def _seconds(self, mark: Any) -> float:
        """When a mark was reached; not a number when it never was, as in a run that broke off."""
        try:
            return self._device.seconds_between(self._start, mark)
        except (RuntimeError, ValueError, TypeError, AttributeError):  # an event or a mark that was never reached
            return math.nan

    def _slices(self) -> Iterator[Slice]:
        for each in self._parts:
            start_s, end_s = self._seconds(each.began), self._seconds(each.ended)
            if start_s <= end_s:
                yield Slice(
                    lane=each.lane,
                    component=each.component,
                    part=each.part,
                    start_s=max(0.0, start_s),
                    end_s=max(0.0, end_s),
                    bytes=each.bytes,
                )

    def _passes(self) -> Iterator[Pass]:
        for each in self._calls:
            start_s, end_s = self._seconds(each.began), self._seconds(each.ended)
            if start_s <= end_s:
                yield Pass(stages=(each.stage,), component=each.stage.component, start_s=start_s, end_s=end_s)

    def _memory(self) -> Iterator[MemoryLevel]:
        """From one reading to the next: the highest sum in between, told apart by the weights at either end."""
        began_s, before = 0.0, dict[str, int]()
        for mark, held, high_bytes in self._levels:
            time_s = self._seconds(mark)
            if not time_s >= began_s:
                continue
            known = max(before, held, key=lambda each: sum(each.values()))
            known = known if sum(known.values()) <= high_bytes else held
            levels = {**known, _OTHER: max(0, high_bytes - sum(known.values()))}
            yield MemoryLevel(time_s=began_s, bytes={name: size for name, size in levels.items() if size})
            began_s, before = time_s, held
        yield MemoryLevel(time_s=began_s, bytes={name: size for name, size in before.items() if size})
