"""What ``roost run`` says while it goes on: a line a stage, and within a long one where it is and what is left."""

from __future__ import annotations

import io
import sys

import pytest
from rich.progress import TimeRemainingColumn

from roost.cli.views import progress
from roost.cli.views.progress import Progress
from roost.residency.engine.stages import StageEvent


class Clock:
    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


def denoise(what, **figures) -> StageEvent:
    return StageEvent(what=what, stage="denoise", component="transformer", phase="denoise", **figures)


def test_a_long_stage_says_once_a_minute_which_step_it_is_at_and_what_is_left(monkeypatch, capsys) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with Progress() as shown:
        shown.on_event(denoise("begin"))
        for step in range(1, 6):
            clock.now_s += 25
            shown.on_event(denoise("step", step=step, steps=5))
        shown.on_event(denoise("end", seconds=125.0, peak_bytes=2**30))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "denoise · transformer: step 3 of 5, about 50.0 s left",
        "denoise · transformer: 2 min 05 s, peak 1.00 GiB",
    ]


def test_a_terminal_sees_step_of_steps_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress() as shown:
        shown.on_event(denoise("begin"))
        shown.on_event(denoise("step", step=2, steps=5))
        bars = shown._bars
        assert bars is not None
        assert [(task.completed, task.total) for task in bars.tasks] == [(2, 5)]
        assert any(isinstance(column, TimeRemainingColumn) for column in bars.columns)
