"""What the search is asked: a planning question with its trace, and what it may ask back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from roost.plan import PlanDocument
from roost.planner.cost.costs import CostModel
from roost.planner.cost.estimate import Forecast
from roost.planner.rules.case import Case, Question
from roost.planner.search.columns import Aim
from roost.planner.search.remedies import Remedy, TraceOther, remedy_text
from roost.trace import Trace, of_role


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuestion:
    """A planning question with what the search needs beside it.

    ``trace_other`` traces another workload, for what would fit where this one doesn't; it must give the same trace
    for the same workload. ``loaded_as`` is the question with all weights in that dtype. ``spell`` makes of what
    would fit the command line that asks for it. ``at_leaf_level`` gives a question anew in which components stream
    below their blocks, None where none could. A plan for ``roost run`` ``gives_back`` host memory: there it is
    known when a component's weights aren't needed again.
    """

    question: Question
    trace: Trace
    model: CostModel
    aim: Aim
    generations: int = 1
    notes: tuple[str, ...] = ()  # on what was measured and is not used
    trace_other: TraceOther | None = None
    loaded_as: Callable[[str], SearchQuestion] | None = None
    at_leaf_level: Callable[[Question], SearchQuestion | None] | None = None
    seek_remedies: bool = True
    spell: Callable[[Remedy], str] = remedy_text
    gives_back: bool = False

    def with_bits_of(self, plan: PlanDocument) -> SearchQuestion:
        """The same question for plans that decode as ``plan`` does, so that their bits can be compared."""
        tiled = frozenset(name for name, each in plan.components.items() if each.tiling)
        sliced = frozenset(name for name, each in plan.components.items() if each.slicing)
        return replace(self, aim=replace(self.aim, tiled=tiled, sliced=sliced))

    def forecast(self, case: Case) -> Forecast:
        """What predictions of this question need beside placements."""
        sliced = [name for name, wish in case.explicit.components.items() if wish.parameters.get("slicing")]
        return Forecast(
            components={each.name: each for each in case.components},
            trace=of_role(self.trace, {each.name for each in case.components}).sliced(sliced),
            model=self.model,
            machine=case.machine,
            generations=self.generations,
            gives_back=self.gives_back,
        )
