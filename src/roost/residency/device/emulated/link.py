"""The emulated link between host and device: copies at a rate, late and logged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from roost.facts.machine import Lane
from roost.residency.device.emulated.activity import Activity, CopyRecord, Direction
from roost.residency.device.emulated.arena import POISON
from roost.residency.device.emulated.lane import WorkLane


class Link:
    """Turns copies into work for a lane. ``rates`` are bytes per second, None as fast as memory goes."""

    def __init__(self, rates: Mapping[Direction, float | None], *, poison: bool, activity: Activity) -> None:
        self._rates = rates
        self._poison = poison
        self._activity = activity
        self._free_s = 0.0  # when the last throttled copy should have ended

    def copying(self, target: torch.Tensor, source: torch.Tensor, lane: WorkLane, direction: Direction) -> None:
        """Enqueues the copy on ``lane``."""
        lane.enqueue(self._work(target, source, lane, direction))

    def _work(
        self, target: torch.Tensor, source: torch.Tensor, lane: WorkLane, direction: Direction
    ) -> Callable[[], None]:
        name: Lane = "copy" if lane.name == "copy" else "compute"
        enqueued_s = time.perf_counter()

        def work() -> None:
            start_s = time.perf_counter()
            written = target.data  # what the lane does is no edit of weights: it counts for no version
            if self._poison:
                fill_with_poison(written)  # a reader that should have waited finds NaN, not last pass's weights
            lane.pause()
            written.copy_(source)
            self._throttle(target.nbytes, direction, start_s, enqueued_s)
            record = CopyRecord(
                lane=name,
                direction=direction,
                copied_bytes=target.nbytes,
                enqueued_s=enqueued_s,
                start_s=start_s,
                end_s=time.perf_counter(),
            )
            self._activity.copies.append(record)

        return work

    def _throttle(self, count: int, direction: Direction, start_s: float, enqueued_s: float) -> None:
        rate = self._rates[direction]
        if rate is None:
            return
        # A copy that queued behind another begins where that one should have ended: sleeping late must not add up.
        begin_s = self._free_s if enqueued_s <= self._free_s <= start_s else start_s
        self._free_s = begin_s + count / rate
        time.sleep(max(0.0, self._free_s - time.perf_counter()))


def fill_with_poison(memory: torch.Tensor) -> None:
    memory.data.view(torch.uint8).fill_(POISON)  # no edit of weights either
