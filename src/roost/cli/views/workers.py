"""A line for each worker of a fleet, on a terminal's stderr; elsewhere one a minute for each that is at work."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from roost.cli.screen import clean, show_note

# Where there is no terminal.
_LINE_EVERY_S = 60.0


class WorkersProgress:
    """Shows what each worker does, as it tells; a context manager."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}
        self._told_s: dict[str, float] = {}
        self._live: Live | None = None
        if sys.stderr.isatty():
            self._live = Live(console=Console(stderr=True), transient=True, refresh_per_second=4)

    def __enter__(self) -> WorkersProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def on_note(self, text: str) -> None:
        """Something that stays to be read."""
        if self._live:
            self._live.console.print(Text(clean(text)))
        else:
            show_note(text)

    def on_worker(self, name: str, doing: Mapping[str, Any]) -> None:
        """What a worker does now: ``what``, and of its ``steps`` the ``step``."""
        step = f", step {doing['step']} of {doing['steps']}" if doing["step"] else ""
        self._lines[name] = f"{clean(name)}: {clean(doing['what'])}{step}"
        now_s = time.monotonic()
        if self._live:
            self._live.update(Text("\n".join(self._lines[each] for each in sorted(self._lines))))
        elif now_s - self._told_s.setdefault(name, now_s) >= _LINE_EVERY_S:
            self._told_s[name] = now_s
            show_note(self._lines[name])
