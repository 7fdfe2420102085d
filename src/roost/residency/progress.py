"""A pipeline's own progress bar, turned into events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

from roost.residency.stages import StageRecorder


class _StepBar:
    """Takes the place of the tqdm that ``pipeline.progress_bar`` makes; other calls on it do nothing."""

    def __init__(self, iterable: Iterable[Any] | None, total: int | None, recorder: StageRecorder) -> None:
        self._iterable, self._recorder = iterable, recorder
        self._total = len(iterable) if total is None and isinstance(iterable, Sized) else total
        self._step = 0

    def update(self, count: int = 1) -> None:
        self._step += count
        self._recorder.step(self._step, self._total)

    def __iter__(self) -> Iterator[Any]:
        for each in () if self._iterable is None else self._iterable:
            yield each
            self.update()

    def __enter__(self) -> _StepBar:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_args, **_kwargs: None


@contextmanager
def report_steps(pipeline: Any, recorder: StageRecorder) -> Iterator[None]:
    """While open, the sampler's steps go to ``recorder`` and no bar is drawn."""
    own = vars(pipeline).get("progress_bar")

    def progress_bar(iterable: Iterable[Any] | None = None, total: int | None = None, **_: object) -> _StepBar:
        return _StepBar(iterable, total, recorder)

    vars(pipeline)["progress_bar"] = progress_bar
    try:
        yield
    finally:
        if own is None:
            vars(pipeline).pop("progress_bar", None)
        else:
            vars(pipeline)["progress_bar"] = own
