"""The stages of a generation, and what each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from roost.facts.model import Kind
from roost.facts.stage import Phase, StageKey, stage_text
from roost.residency.device.interface import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """What one component took in one stage. ``seconds`` include its copies; the bytes are the device's peaks."""

    name: str
    component: str
    phase: Phase
    seconds: float
    peak_bytes: int
    reserved_bytes: int | None = None  # by the allocator; None where there is none

    def with_more(self, later: StageRecord) -> StageRecord:
        """Both as one: seconds added, the highest peaks."""
        return replace(
            later,
            seconds=self.seconds + later.seconds,
            peak_bytes=max(self.peak_bytes, later.peak_bytes),
            reserved_bytes=greatest(self.reserved_bytes, later.reserved_bytes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEvent:
    """Sent while a pipeline runs; the figures are None until they are known."""

    what: Literal["begin", "step", "end"]
    stage: str
    component: str
    phase: Phase
    step: int | None = None
    steps: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None


OnEvent = Callable[[StageEvent], None]


def greatest(*figures: int | None) -> int | None:
    """The greatest known one; None when none is."""
    return max((each for each in figures if each is not None), default=None)


class StageRecorder:
    """Times the stages of one generation after another; ``records`` are those of the latest.

    ``step_seconds`` are its steps from the second one on: the first begins at no mark of its own.
    """

    def __init__(self, device: Device, on_event: OnEvent | None, kinds: Mapping[str, Kind]) -> None:
        self.records: list[StageRecord] = []
        self.step_seconds: tuple[float, ...] = ()
        self.on_event = on_event
        self._device, self._kinds = device, kinds
        self._open: StageEvent | None = None
        self._began_s = 0.0
        self._fresh = True  # the next stage is the first of a generation
        self._marks: list[Any] = []  # the ends of the steps
        self._left_out: list[tuple[int, float]] = []  # seconds that are none of a step's, and how many had ended

    @property
    def began(self) -> bool:
        """Whether the present generation has used a component."""
        return not self._fresh

    def is_open(self, key: StageKey) -> bool:
        return self._open is not None and (self._open.component, self._open.phase) == (key.component, key.phase)

    def text_of(self, key: StageKey) -> str:
        """What people call the stage."""
        return stage_text(key.phase, key.component, kinds=self._kinds, named=False)

    def begin(self, key: StageKey) -> None:
        """Closes the stage before and starts the clock of this one."""
        self._close()
        if self._fresh:
            self.records, self._marks, self._left_out, self._fresh = [], [], [], False
        self._open = StageEvent(what="begin", stage=self.text_of(key), component=key.component, phase=key.phase)
        self._began_s = time.perf_counter()
        self._send(self._open)

    def step(self, step: int, steps: int | None) -> None:
        """Reports the sampler's progress within the open stage."""
        self._marks.append(self._device.mark())
        if self._open is not None:
            self._send(replace(self._open, what="step", step=step, steps=steps))

    def leave_out(self, seconds: float) -> None:
        """Has the step that runs not count them: masters came, and the device waited."""
        self._left_out.append((len(self._marks), seconds))

    def finish(self) -> None:
        """Ends the generation: closes its last stage."""
        self._close()
        steps = [*map(self._device.seconds_between, self._marks, self._marks[1:])]
        for ended, seconds in self._left_out:
            if 0 < ended <= len(steps):
                steps[ended - 1] -= seconds
        self.step_seconds = tuple(steps)
        self._fresh = True

    def _close(self) -> None:
        if self._open is None:
            return
        self._device.synchronize()
        seconds, peak = time.perf_counter() - self._began_s, self._device.peak_bytes
        ended, self._open = self._open, None
        self._record(
            StageRecord(
                name=ended.stage,
                component=ended.component,
                phase=ended.phase,
                seconds=seconds,
                peak_bytes=peak,
                reserved_bytes=self._device.reserved_bytes,
            )
        )
        self._send(replace(ended, what="end", seconds=seconds, peak_bytes=peak))

    def _record(self, new: StageRecord) -> None:
        """Adds to the component's record when the stage still runs: encoders take turns within one."""
        for index in range(len(self.records) - 1, -1, -1):
            old = self.records[index]
            if old.phase != new.phase:
                break
            if old.component == new.component:
                self.records[index] = old.with_more(new)
                return
        self.records.append(new)

    def _send(self, event: StageEvent) -> None:
        if self.on_event is not None:
            self.on_event(event)
