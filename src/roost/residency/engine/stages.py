"""The stages of a generation, and what each took."""

from __future__ import annotations

from collections import deque
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
    """Sent while a pipeline runs; the figures are None until they are known.

    ``took`` says how long a step was on the device in which no component was used for the first time, and ``end`` the
    same of a stage: both may come after what began meanwhile.
    """

    what: Literal["begin", "step", "took", "end"]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """A stage whose work is all enqueued, and maybe not done yet."""

    event: StageEvent
    began: Any
    ended: Any
    peak_bytes: int
    reserved_bytes: int | None


class StageRecorder:
    """Times the stages of one generation after another; ``records`` are those of the latest that are known by now.

    Times lie between marks on the compute lane, which are read once the device got there: nothing waits for them before
    the generation's end. ``step_seconds`` are its steps from the second one on: the first begins at no mark of its own.
    """

    def __init__(self, device: Device, on_event: OnEvent | None, kinds: Mapping[str, Kind]) -> None:
        self.records: list[StageRecord] = []
        self.step_seconds: tuple[float, ...] = ()
        self.on_event = on_event
        self._device, self._kinds = device, kinds
        self._open: StageEvent | None = None
        self._began: Any = None
        self._ended: deque[_Ended] = deque()  # in this order; not reported yet
        self._fresh = True  # the next stage is the first of a generation
        self._marks: list[Any] = []  # the ends of the steps
        self._timed: deque[tuple[StageEvent, Any, Any]] = deque()  # steps of stages that go on, not reported yet
        self._seen: set[StageKey] = set()  # in this generation
        self._arrived = True  # a component has come in for the first time since the latest step
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
        """Ends the stage before and starts the clock of this one."""
        now = self._device.mark()
        self._close(now)
        if self._fresh:
            self.records, self._marks, self._left_out, self._fresh = [], [], [], False
            self._seen.clear()
        self._arrived = self._arrived or key not in self._seen
        self._seen.add(key)
        self._open = StageEvent(what="begin", stage=self.text_of(key), component=key.component, phase=key.phase)
        self._began = now
        self._tell()
        self._send(self._open)

    def step(self, step: int, steps: int | None) -> None:
        """Reports the sampler's progress within the open stage, and how long the steps took that are over."""
        with self._device.engine_work():  # a pipeline's own code comes from outside of it
            self._marks.append(self._device.mark())
            if self._open is not None:
                event = replace(self._open, what="step", step=step, steps=steps)
                self._send(event)
                if not self._arrived:
                    self._timed.append((replace(event, what="took"), *self._marks[-2:]))
            self._arrived = False
            self._tell()

    def leave_out(self, seconds: float) -> None:
        """Has the step that runs not count them: masters came, and the device waited."""
        self._left_out.append((len(self._marks), seconds))

    def finish(self) -> None:
        """Ends the generation: waits for its last stage."""
        if not self._fresh:
            self._close(self._device.mark())
            self._device.synchronize()
        self._tell()
        steps = [*map(self._device.seconds_between, self._marks, self._marks[1:])]
        for ended, seconds in self._left_out:
            if 0 < ended <= len(steps):
                steps[ended - 1] -= seconds
        self.step_seconds = tuple(steps)
        self._fresh = self._arrived = True

    def _close(self, now: Any) -> None:
        if self._open is None:
            return
        self._ended.append(
            _Ended(
                event=replace(self._open, what="end"),
                began=self._began,
                ended=now,
                peak_bytes=self._device.peak_bytes,
                reserved_bytes=self._device.reserved_bytes,
            )
        )
        self._open = None

    def _tell(self) -> None:
        """Reports the steps and stages that the device is through with."""
        while self._timed and self._device.reached(self._timed[0][2]):
            event, began, ended = self._timed.popleft()
            self._send(replace(event, seconds=self._device.seconds_between(began, ended)))
        while self._ended and self._device.reached(self._ended[0].ended):
            over = self._ended.popleft()
            seconds = self._device.seconds_between(over.began, over.ended)
            self._record(
                StageRecord(
                    name=over.event.stage,
                    component=over.event.component,
                    phase=over.event.phase,
                    seconds=seconds,
                    peak_bytes=over.peak_bytes,
                    reserved_bytes=over.reserved_bytes,
                )
            )
            self._send(replace(over.event, seconds=seconds, peak_bytes=over.peak_bytes))

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
