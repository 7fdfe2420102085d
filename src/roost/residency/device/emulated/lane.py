"""A queue of work in the part of a device's stream."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

Work = Callable[[], None]


class LaneMark:
    """When a lane got there, by ``time.perf_counter``; not a number before."""

    __slots__ = ("reached_s",)

    def __init__(self) -> None:
        self.reached_s = math.nan

    def reach(self) -> None:
        self.reached_s = time.perf_counter()


class WorkLane:
    """Runs what is enqueued in that order: on a thread of its own, or at once on the caller's (``threaded=False``).

    A position is the number of works enqueued before it; it is reached when all of those are done. An error of a work
    on the thread is raised by the next ``enqueue`` or ``wait_until``; later works run nevertheless, so nobody hangs.
    """

    def __init__(self, name: str, *, threaded: bool, delays: random.Random | None = None) -> None:
        self.name = name
        self.end = 0
        self._done = 0
        self._threaded = threaded
        self._delays = delays
        self._moved = threading.Condition()
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def enqueue(self, work: Work) -> None:
        self._raise_error()
        self.end += 1
        if not self._threaded:
            try:
                work()
            finally:
                self._done = self.end
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"roost-emulated-{self.name}", daemon=True)
            self._thread.start()
        self._queue.put(work)

    def reached(self, position: int) -> bool:
        return self._done >= position

    def wait_until(self, position: int) -> None:
        """Blocks the calling thread until ``position`` is reached."""
        if self._done < position:
            with self._moved:
                self._moved.wait_for(lambda: self._done >= position)
        self._raise_error()

    def pause(self) -> None:
        """An adversarial delay: mostly none, seldom milliseconds."""
        if self._delays is not None and self._delays.random() < 0.5:
            time.sleep(2e-3 * self._delays.random() ** 3)

    def close(self) -> None:
        """Finishes what is enqueued and ends the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            self.pause()
            try:
                work()
            except BaseException as error:  # must reach the host, whatever it is
                self._error = self._error or error
            del work  # a finished work must not keep its buffers alive
            with self._moved:
                self._done += 1
                self._moved.notify_all()

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
