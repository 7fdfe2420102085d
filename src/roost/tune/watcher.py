"""Who hears what a bench does while it runs."""

from __future__ import annotations

from typing import Protocol

from roost.plan.results import TrialResult
from roost.tune.messages import Message
from roost.tune.race import RoundReport


class Watcher(Protocol):
    """Hears what a bench does."""

    def on_expected(self, seconds: float, candidates: int) -> None:
        """How long it will take, at most, as far as that is known now."""

    def on_shortage(self, reached: int, candidates: int, seconds: float) -> None:
        """The ``seconds`` left hold one trial of about so many of the candidates; the others may not be reached."""

    def on_trial(self, name: str, round: int) -> None:
        """A trial begins; round 0 is the reference."""

    def on_message(self, name: str, message: Message) -> None:
        """The trial says something."""

    def on_result(self, name: str, result: TrialResult) -> None:
        """A trial is over."""

    def on_round(self, report: RoundReport) -> None:
        """A round is over."""
