"""The most host memory that a trial needs, also where it was spared the reading of weights that it shares."""

from __future__ import annotations

from roost.probes.host import forget_peak_rss, peak_rss_bytes, resident_bytes


class HostPeak:
    """This process's peak of resident memory, phase by phase. Nothing counts where the system doesn't say."""

    def __init__(self) -> None:
        self._most_bytes = 0  # in phases that are over

    @property
    def bytes(self) -> int | None:
        """The most since the start; None where the system doesn't say."""
        now_bytes = peak_rss_bytes()
        return None if now_bytes is None else max(self._most_bytes, now_bytes)

    def begin_phase(self) -> int:
        """What is resident now; the peak of what comes next is ``phase_bytes``."""
        self._most_bytes = self.bytes or 0
        forget_peak_rss()
        return resident_bytes() or 0

    def phase_bytes(self) -> int:
        """The most since the phase began."""
        return peak_rss_bytes() or 0

    def end_phase(self, counted_bytes: int) -> None:
        """Counts the phase as if it had taken so much, whatever it took."""
        self._most_bytes = max(self._most_bytes, counted_bytes)
        forget_peak_rss()
