"""The engine says of all its work on which device it is: a thread's current one may be another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch

from engine_cases import with_pinned
from live_pipelines import bare_digest, own_pipeline, request_for
from plans import GIB, LAYERWISE, plan_for
from roost.facts.machine import Lane
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import hold
from roost.residency.run.generate import generate


class TellingDevice(EmulatedDevice):
    """Notes what of the engine's is enqueued by a thread that has not said that it works for this device."""

    def __init__(self) -> None:
        super().__init__(GIB)
        self.stray: list[str] = []
        self._working = threading.local()

    def enter_thread(self) -> None:
        self._working.depth = 1

    def engine_work(self) -> AbstractContextManager[object]:
        return self._engine_work()

    @contextmanager
    def _engine_work(self) -> Iterator[None]:
        self._working.depth = self._depth + 1
        try:
            with super().engine_work():
                yield
        finally:
            self._working.depth -= 1

    def copy(self, target: torch.Tensor, source: torch.Tensor, lane: Lane = "copy") -> None:
        self._note("copy")
        super().copy(target, source, lane)

    def record(self, lane: Lane) -> Any:
        self._note("record")
        return super().record(lane)

    def wait(self, lane: Lane, event: Any) -> None:
        self._note("wait")
        super().wait(lane, event)

    @property
    def _depth(self) -> int:
        return getattr(self._working, "depth", 0)

    def _note(self, what: str) -> None:
        if not self._depth:
            self.stray.append(f"{what} on {threading.current_thread().name}")


@pytest.mark.parametrize("strategy", ["resident", "component-offload", LAYERWISE], ids=str)
@pytest.mark.parametrize("pinned", [True, False])
def test_copies_and_events_are_enqueued_by_threads_that_work_for_the_device(strategy: Any, pinned: bool) -> None:
    pipeline = own_pipeline("sd3")
    plan = plan_for(pipeline, strategy)
    with TellingDevice() as device:
        with hold(pipeline, with_pinned(plan) if pinned else plan, device) as held:
            digests = [generate(held, request_for("sd3")).digest for _ in range(2)]
        assert device.stray == []
    assert digests == [bare_digest("sd3")] * 2
