"""A bar per stage on a terminal's stderr; elsewhere a line per stage, and one a minute within it."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from roost.cli.screen import clean, show_note
from roost.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from roost.api.measurements.run_records import RehearsedRecord
    from roost.api.requests.request import PlannedGeneration
    from roost.residency.engine.stages import StageEvent


# Where there is no terminal, how often a stage's steps are worth a line.
_LINE_EVERY_S = 60.0
# A step may take minutes: the speed is that of the last hour.
_SPEED_OVER_S = 3600.0


class Progress:
    """Shows loading and stages as they happen; a context manager. Pass its methods to ``run_plan``."""

    def __init__(self) -> None:
        self._bars: RichProgress | None = None
        self._task: TaskID | None = None
        self._which = ""  # of several generations
        self._began_s = self._told_s = 0.0  # the stage, and the latest line about it
        if sys.stderr.isatty():
            self._bars = RichProgress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                speed_estimate_period=_SPEED_OVER_S,
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> Progress:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def on_component(self, name: str) -> None:
        """A component's load begins."""
        self._begin(f"loading {clean(name)}")

    def on_generation(self, generation: PlannedGeneration, number: int, count: int) -> None:
        """One of several calls begins, of one generation or a group."""
        self._which = f"{number}/{count} " if count > 1 else ""
        if self._which and not self._bars:
            group = generation.batch_of
            show_note(
                f"generation {number} of {count}: seed {generation.seed}"
                if group == 1
                else f"call {number} of {count}: {group} prompts"
            )

    def on_rehearsal(self, stage: str, record: RehearsedRecord | None) -> None:
        """A stage is tried before the first generation, or was."""
        if record is None:
            self._begin(f"rehearsing {clean(stage)}")
            return
        measured, predicted = format_bytes(record.measured_bytes), format_bytes(record.predicted_bytes)
        show_note(f"rehearsed {clean(stage)}: {measured} where {predicted} was predicted")

    def on_event(self, event: StageEvent) -> None:
        """A stage begins, takes a step, or ends."""
        label = f"{self._which}{clean(event.stage)} · {clean(event.component)}"
        if event.what == "begin":
            self._begin(label)
        elif event.what == "step":
            self._step(label, event.step or 0, event.steps)
        elif event.what == "end" and not self._bars:
            show_note(f"{label}: {format_seconds(event.seconds)}, peak {format_bytes(event.peak_bytes)}")

    def _step(self, label: str, step: int, steps: int | None) -> None:
        if self._bars and self._task is not None:
            self._bars.update(self._task, completed=step, total=steps)
        elif step and steps and self._bars is None and time.monotonic() - self._told_s >= _LINE_EVERY_S:
            self._told_s = time.monotonic()
            left_s = (self._told_s - self._began_s) / step * (steps - step)
            show_note(f"{label}: step {step} of {steps}, about {format_seconds(left_s)} left")

    def _begin(self, label: str) -> None:
        self._began_s = self._told_s = time.monotonic()
        if self._bars is None:
            return
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(label, total=None)
