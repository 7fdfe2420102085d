"""How a command is ended from outside: a signal unwinds it as Ctrl-C does, and decides its exit code."""

from __future__ import annotations

import math
import signal
import sys
import time
from threading import Timer, main_thread
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_CAUGHT = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
_SAID = {"SIGINT": "interrupted.", "SIGTERM": "terminated.", "SIGHUP": "its terminal is gone."}
# A second signal within this time is the same wish: a shell sends SIGHUP beside SIGTERM, and cleaning up goes on.
_AGAIN_S = 2.0
_DROPPED_S = 0.01


class Endings:
    """The first signal that came, from ``catch`` on."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self._last_s = 0.0

    def catch(self) -> None:
        """Handles the signals that whoever started this process hasn't asked to ignore (``nohup``)."""
        for number in _numbers():
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._end)
        sys.unraisablehook = self._dropped

    def ignore(self) -> None:
        """From now on nothing keeps the process from its end."""
        for number in _numbers():
            signal.signal(number, signal.SIG_IGN)

    @property
    def said(self) -> str:
        """What became of the command, for its person."""
        return _SAID[(self.first or signal.SIGINT).name]

    @property
    def exit_code(self) -> int:
        """As a shell has it for a process that the signal killed."""
        return 128 + (self.first or signal.SIGINT)

    def _end(self, number: int, _: FrameType | None) -> None:
        now_s = time.monotonic()
        is_first = self.first is None
        if is_first:
            self.first = signal.Signals(number)
        elif now_s - self._last_s < _AGAIN_S:
            return
        self._last_s = now_s
        raise KeyboardInterrupt

    def _dropped(self, what: UnraisableHookArgs) -> None:
        """Sends a signal once more that came in a destructor or the like, where Python drops exceptions."""
        if self.first is None or not isinstance(what.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(what)
            return
        self._last_s = -math.inf
        Timer(_DROPPED_S, _send, (self.first,)).start()


def _send(number: signal.Signals) -> None:
    """To the main thread, whose system calls it is to end."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def _numbers() -> list[signal.Signals]:
    return [getattr(signal, name) for name in _CAUGHT if hasattr(signal, name)]


endings = Endings()
