"""Trials with a memory: from the journal, or measured and put into it; and who hears of them."""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack
from dataclasses import replace

from roost.facts.machine import DeviceKind, GpuFacts
from roost.plan.results import TrialResult
from roost.probes.machine.gpu_conditions import ConditionSampler, GpuConditions
from roost.tune.race.race import RoundReport
from roost.tune.results.document import result_of, row_document
from roost.tune.results.figures import against_reference, process_bytes
from roost.tune.results.records import Candidate, Row
from roost.tune.trials.candidates import placement_of
from roost.tune.trials.journal import Journal
from roost.tune.trials.messages import Message
from roost.tune.trials.runner import Trials


class RecordedTrials:
    """Runs trials for a bench, and knows those that an interrupted one ran.

    ``same_bits`` says that all outputs must be equal: they are compared with what diffusers alone makes of the model.
    """

    def __init__(
        self, trials: Trials, journal: Journal, watcher: BenchWatcher, gpu: GpuFacts, *, same_bits: bool
    ) -> None:
        self.trials = trials
        self.looks: list[tuple[GpuConditions, ...]] = []
        self._journal, self._watcher, self._gpu, self._same_bits = journal, watcher, gpu, same_bits
        self._references: dict[object, tuple[str, str]] = {}  # name and digest, by what changes bits
        self._replayed_s = 0.0

    def clock(self) -> float:
        """Seconds, with those of an interrupted bench: going on takes the time that is left."""
        return time.monotonic() + self._replayed_s

    @property
    def reference(self) -> str | None:
        """The first whose digest others were compared with."""
        return next((name for name, _ in self._references.values()), None)

    def run(
        self, candidate: Candidate, round: int, abort_after_s: float | None = None, *, bound: bool = True
    ) -> TrialResult:
        """One trial. An output that differs from the reference's is ``wrong``."""
        plan = candidate.plan
        placement = hashlib.sha256(repr(placement_of(plan) if plan else None).encode()).hexdigest()
        line = self._journal.find(name=candidate.name, round=round, placement=placement)
        known = None if line is None else result_of(line)
        if line is not None and known is not None:
            self._replayed_s += float(str(line.get("took_s", 0.0)))
            found = known
        else:
            began_s = self.clock()
            self._watcher.on_trial(candidate.name, round)
            found = self._run(candidate, abort_after_s, bound)
            # Without the verdict: who goes on from here with other candidates may have another reference.
            row = row_document(Row(candidate=candidate, result=found, rounds=1))
            where = {"round": round, "placement": placement, "took_s": self.clock() - began_s}
            self._journal.add({**row, **where})
        result = self._compared(candidate, found)
        if known is None:
            self._watcher.on_result(candidate.name, result)
        if result.status == "ok" and result.digest is not None:
            self._references.setdefault(self._bits(candidate), (candidate.name, result.digest))
        return result

    def _run(self, candidate: Candidate, abort_after_s: float | None, bound: bool) -> TrialResult:
        with ExitStack() as sampling:
            looks = sampling.enter_context(ConditionSampler(self._gpu.uuid)) if self._gpu.uuid else None
            found = self.trials.run(
                candidate,
                abort_after_s,
                lambda message: self._watcher.on_message(candidate.name, message),
                bound=bound,
            )
        if looks is None:
            return found
        self.looks.append(looks.looks)
        return replace(found, process_bytes=process_bytes(looks.looks))

    def _compared(self, candidate: Candidate, found: TrialResult) -> TrialResult:
        result = against_reference(found, *self._references.get(self._bits(candidate), ("", None)))
        placed = candidate.plan.components.values() if candidate.plan else ()
        if result.status == "wrong" and any(each.tiling or each.storage for each in placed):
            return replace(result, reason=f"{result.reason}; its plan changes bits, which a bench can't judge")
        return result

    def _bits(self, candidate: Candidate) -> object:
        """Equal for trials whose outputs must be equal: all of them, where diffusers alone is what they must equal.

        Where it is not, plans may differ in what changes bits, and somebody has allowed that.
        """
        if self._same_bits or candidate.plan is None:
            return None
        return (
            candidate.plan.attention,
            candidate.plan.cache,
            *(
                (name, each.tiling, each.slicing, each.storage)
                for name, each in sorted(candidate.plan.components.items())
            ),
        )


# Who hears what a bench does while it runs.


class BenchWatcher:
    """Hears what a bench does, and does nothing; derive from it what you want done."""

    def on_field(self, candidates: int, seconds: float) -> None:
        """So many candidates are to be raced, in so many seconds at most."""

    def on_begin(self, device_kind: DeviceKind, known: int) -> None:
        """Trials begin; so many are known from an interrupted bench."""

    def on_interrupt(self, kept: int) -> None:
        """The bench was interrupted; so many trials are in the journal, and the next one goes on from there."""

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
