"""Which remedies are named: a few, the cheapest loss first, each verified by searching again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice

from roost.facts.request import Workload
from roost.planner.search.remedies.change import Change, LoadedAs, Remedy
from roost.planner.search.remedies.less_work import less_of_one, smaller_and_shorter
from roost.planner.search.remedies.single import (
    dearer,
    enlarged,
    fewer_options,
    halved,
    less_headroom,
    more_memory,
    rounded,
    unforbidden,
)
from roost.planner.search.shortfall import Shortfall
from roost.trace import Trace

_MOST = 5
# Each of another workload takes up to half of what the plan's own did: all remedies together less than twice the plan.
_DRY_RUNS = 5


def remedies(asked: Change, missing: Shortfall, loaded_as: LoadedAs | None = None) -> tuple[Remedy, ...]:
    """The changes that fit, the cheapest loss first: less typed, other bits, less asked for, both; then more memory.

    Where host memory is short too, each comes with as much of it as lacks. ``loaded_as`` is the question with all
    weights in another dtype; without it none is looked at.
    """
    found = list(islice(_losses(asked, missing, loaded_as), _MOST - 1))
    larger = _enough(more_memory(asked, missing), missing)
    return (*found, *([larger.remedy] if larger.fits() else []))


def surer(asked: Change, missing: Shortfall | None, premium: float, loaded_as: LoadedAs | None) -> tuple[Remedy, ...]:
    """The changes with which a plan surely fits that likely does; without anything ``missing``, what it costs."""
    if missing is not None:
        return remedies(asked, missing, loaded_as)
    dear = dearer(asked, premium)
    return (dear.remedy,) if dear.fits() else ()


def _losses(asked: Change, missing: Shortfall, loaded_as: LoadedAs | None) -> Iterator[Remedy]:
    runs, other_bits = _DryRuns(), list[Change]()
    found = False
    for change in _single(asked, missing, runs.of_dtypes(loaded_as), other_bits):
        enough = _enough(change, missing)
        if enough.fits():
            found = True
            yield enough.remedy
    if missing.memory == "VRAM" and missing.also is None:
        yield from _less_work([runs.counted(each) for each in (asked, *([] if found else other_bits))])


def _single(
    asked: Change, missing: Shortfall, loaded_as: LoadedAs | None, other_bits: list[Change]
) -> Iterator[Change]:
    """Single changes of the same work; those that change bits go to ``other_bits`` too."""
    yield from fewer_options(asked)
    yield from less_headroom(asked, missing)
    for change in chain(unforbidden(asked), rounded(asked), halved(asked, missing, loaded_as) if loaded_as else ()):
        other_bits.append(change)
        yield change


def _less_work(changes: Iterable[Change]) -> Iterator[Remedy]:
    """Less work with the first of the changes that it is enough with; of one kind, else of two."""
    for lessen in (less_of_one, smaller_and_shorter):
        for change in changes:
            found = list(lessen(change))
            if found:
                yield from found
                return


def _enough(change: Change, missing: Shortfall) -> Change:
    """The change together with the host memory that is short too."""
    return change if missing.also is None else enlarged(change, missing.also)


@dataclass(slots=True)
class _DryRuns:
    """The dry runs that are left for all remedies; one workload of one question is run once."""

    left: int = _DRY_RUNS

    def counted(self, asked: Change) -> Change:
        """The question with its other workloads run only while there are runs left."""
        run, known = asked.trace_other, dict[Workload, Trace | None]()
        if run is None:
            return asked

        def counted(workload: Workload) -> Trace | None:
            if workload not in known:
                known[workload] = run(workload) if self._one_more() else None
            return known[workload]

        return replace(asked, trace_other=counted)

    def of_dtypes(self, loaded_as: LoadedAs | None) -> LoadedAs | None:
        """The same for questions in other dtypes."""
        if loaded_as is None:
            return None
        return lambda dtype: loaded_as(dtype) if self._one_more() else None

    def _one_more(self) -> bool:
        self.left -= 1
        return self.left >= 0
