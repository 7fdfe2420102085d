"""A remedy: what to ask for instead; and the question as it then is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from roost.facts.machine import Machine
from roost.facts.request import Workload
from roost.planner.cost.estimate import Forecast
from roost.planner.placements import place
from roost.planner.rules.case import Case
from roost.planner.rules.table import apply_rules
from roost.planner.search.columns import Aim, Options, size_all
from roost.planner.search.pricing import Pricer
from roost.planner.search.search import can_fit
from roost.trace import Trace

TraceOther = Callable[[Workload], Trace | None]  # None for what can't be traced
Finds = Callable[[Case, Forecast, Aim], bool]  # whether a search finds what is wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What to ask for instead: options with their values, and typed ones to leave out; ``note`` is for people."""

    given: tuple[tuple[str, str], ...] = ()
    without: tuple[str, ...] = ()
    note: str = ""


def remedy_text(remedy: Remedy) -> str:
    """The change alone, for who knows no command line to make it in."""
    words = [*(f"without {each}" for each in remedy.without), *(" ".join(each) for each in remedy.given)]
    return " ".join([*words, *([f"({remedy.note})"] if remedy.note else [])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A remedy, and the question as it then is; ``trace_other`` says what another workload does.

    ``surely_finds`` searches for a plan that surely fits, where one that likely does isn't enough.
    """

    remedy: Remedy = Remedy()
    case: Case
    forecast: Forecast
    aim: Aim
    trace_other: TraceOther | None = None
    surely_finds: Finds | None = None

    def fits(self) -> bool:
        """Whether the search then finds a plan."""
        if self.surely_finds is not None:
            return self.surely_finds(self.case, self.forecast, self.aim)
        pricer = Pricer(self.forecast)
        return can_fit(self.options(pricer), pricer, self.aim)

    def options(self, pricer: Pricer) -> Options:
        """Every component's candidates with what they need: likely, or surely where that is wanted."""
        options = size_all(self.case, place(self.case, apply_rules(self.case).decisions), pricer, self.aim)
        if self.surely_finds is None:
            return options
        return {name: [replace(each, own_bytes=each.sure_bytes) for each in found] for name, found in options.items()}

    def also(self, *given: tuple[str, str]) -> Remedy:
        """The remedy with more options beside its own."""
        return replace(self.remedy, given=(*self.remedy.given, *given))


LoadedAs = Callable[[str], Change | None]  # the question with all weights in that dtype; None where it can't be traced


def on_machine(remedy: Remedy, machine: Machine, asked: Change) -> Change:
    """The question on another machine."""
    return replace(
        asked,
        remedy=remedy,
        case=replace(asked.case, machine=machine),
        forecast=replace(asked.forecast, machine=machine),
    )
