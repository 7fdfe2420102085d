"""Who hears what a bench does while it runs."""

from __future__ import annotations

from typing import Protocol

from roost.tune.cuts import Cut
from roost.tune.process import Message
from roost.tune.race import RoundReport
from roost.tune.records import TrialResult


class Watcher(Protocol):
    """Hears what a bench does."""

    def on_expected(self, seconds: float, candidates: int) -> None:
        """How long it will take, at most, as far as that is known now."""

    def on_heat(self, cut: Cut, candidates: int, seconds: float) -> None:
        """A heat begins, and how long it will take: the trials until ``on_heat_over`` run what the cut leaves."""

    def on_heat_over(self, going_on: int, problem: str | None) -> None:
        """The heat is over; with a ``problem`` it said nothing, and everybody goes on."""

    def on_trial(self, name: str, round: int) -> None:
        """A trial begins; round 0 is the reference or a heat."""

    def on_message(self, name: str, message: Message) -> None:
        """The trial says something."""

    def on_result(self, name: str, result: TrialResult) -> None:
        """A trial is over."""

    def on_round(self, report: RoundReport) -> None:
        """A round is over."""
