"""The bench: the reference, the race of the candidates, and what became of each."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from roost.planner.search_plan import SearchQuestion
from roost.probes.gpu_conditions import ConditionSampler, GpuConditions
from roost.tune.candidates import Field, placement_of, why_not
from roost.tune.disturbances import condition_warnings
from roost.tune.figures import against_reference, measurement, process_bytes, result_of, row_document, together
from roost.tune.journal import Journal
from roost.tune.process import Message
from roost.tune.race import RaceOutcome, RaceSettings, RoundReport, race
from roost.tune.records import BenchResults, Candidate, Measurement, Row, TrialResult
from roost.tune.trials import Trials, TrialWorld

# Loading the libraries, by the clock of machines with a warm page cache.
START_S = 10.0


class Watcher(Protocol):
    """Hears what a bench does."""

    def on_expected(self, seconds: float, candidates: int) -> None:
        """How long it will take, at most, as far as that is known now."""

    def on_trial(self, name: str, round: int) -> None:
        """A trial begins; round 0 is the reference."""

    def on_message(self, name: str, message: Message) -> None:
        """The trial says something."""

    def on_result(self, name: str, result: TrialResult) -> None:
        """A trial is over."""

    def on_round(self, report: RoundReport) -> None:
        """A round is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """How much is measured. ``max_seconds`` bounds the whole bench, but for one trial that runs when it ends."""

    rounds: int = 3
    max_seconds: float = 300.0


@dataclass(slots=True)
class _Found:
    """What the trials have found so far."""

    trials: dict[str, list[TrialResult]] = field(default_factory=dict)
    samples: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)
    looks: list[tuple[GpuConditions, ...]] = field(default_factory=list)
    references: dict[object, tuple[str, str]] = field(default_factory=dict)  # name and digest, by what changes bits
    beyond: TrialResult | None = None  # of plain diffusers, which did not fit the budget

    @property
    def reference(self) -> str | None:
        """The first whose digest others were compared with."""
        return next((name for name, _ in self.references.values()), None)


class Bench:
    """One bench. ``run`` may be interrupted at any time: the journal then has every trial that ended."""

    def __init__(
        self, asked: SearchQuestion, entrants: Field, trials: Trials, journal: Journal, watcher: Watcher
    ) -> None:
        self._asked, self._field, self._trials, self._journal = asked, entrants, trials, journal
        self._watcher = watcher
        self._found = _Found()
        self._replayed_s = 0.0

    def run(self, settings: BenchSettings) -> BenchResults:
        """Measures the field; never raises for what a candidate does."""
        began_s = self._clock()
        plain = self._field.plain
        fits = plain is not None and why_not(plain) is None
        racers = [*([plain] if plain is not None and fits else []), *self._field.racing]
        self._expect(self._predicted_s(racers, settings), len(racers))
        if plain is not None and not fits and racers:
            self._measure_reference(plain)
            if self._found.beyond is not None:
                self._expect_anew(racers, settings, self._clock() - began_s)
        by_name = {each.name: each for each in racers}
        outcome = race(
            list(by_name),
            lambda name, abort_after_s: self._measure(by_name[name], abort_after_s),
            RaceSettings(
                rounds=settings.rounds,
                budget_s=max(0.0, settings.max_seconds - (self._clock() - began_s)),
                predicted_step_s=self._predicted_step_s(racers),
            ),
            self._after_round,
            self._clock,
        )
        self._journal.finish()
        return self._results(racers, outcome)

    def _clock(self) -> float:
        """Seconds, with those of an interrupted bench: going on takes the time that is left."""
        return time.monotonic() + self._replayed_s

    def _measure_reference(self, plain: Candidate) -> None:
        """Diffusers alone beyond the budget, where the machine has the memory: for its digest."""
        machine, predicted = self._asked.question.machine, plain.plan.predicted if plain.plan else None
        if machine.gpu.device_kind == "emulated":
            possible = 2 * self._asked.question.inventory.load_bytes < machine.host.available_bytes
        else:
            possible = predicted is not None and predicted.peak_bytes.mid < machine.gpu.total_bytes
        if not possible:
            return
        result = self._trial(plain, 0, None, bound=False)
        self._found.beyond = result
        if result.digest is not None:
            self._found.references[self._bits(plain)] = plain.name, result.digest

    def _measure(self, candidate: Candidate, abort_after_s: float | None) -> Measurement:
        rounds = self._found.trials.setdefault(candidate.name, [])
        result = self._trial(candidate, len(rounds) + 1, abort_after_s)
        if result.status == "ok" and result.digest is not None:
            self._found.references.setdefault(self._bits(candidate), (candidate.name, result.digest))
        rounds.append(result)
        seen = measurement(result, self._trials.world.steps)
        if seen.status == "ok":
            self._found.samples.setdefault(candidate.name, []).append(seen.step_s)
        return seen

    def _bits(self, candidate: Candidate) -> object:
        """Equal for candidates whose outputs must be equal: all of them, where diffusers alone is what they must equal.

        Where it is not, plans may differ in what changes bits, and somebody has allowed that.
        """
        if self._field.plain is not None or candidate.plan is None:
            return None
        return tuple(
            (name, each.tiling, each.slicing, each.storage) for name, each in sorted(candidate.plan.components.items())
        )

    def _trial(
        self, candidate: Candidate, round: int, abort_after_s: float | None, *, bound: bool = True
    ) -> TrialResult:
        """From the journal, or measured and put into it."""
        name = candidate.name
        plan = candidate.plan
        placement = hashlib.sha256(repr(placement_of(plan) if plan else None).encode()).hexdigest()
        known = self._journal.find(name=name, round=round, placement=placement)
        if known is not None:
            self._replayed_s += float(str(known.get("took_s", 0.0)))
            return result_of(known)
        began_s = self._clock()
        self._watcher.on_trial(name, round)
        with ExitStack() as sampling:
            gpu = self._asked.question.machine.gpu
            looks = sampling.enter_context(ConditionSampler(gpu.uuid)) if gpu.uuid else None
            found = self._trials.run(
                candidate, abort_after_s, lambda message: self._watcher.on_message(name, message), bound=bound
            )
        if looks is not None:
            self._found.looks.append(looks.looks)
            found = replace(found, process_bytes=process_bytes(looks.looks))
        result = against_reference(found, *self._found.references.get(self._bits(candidate), ("", None)))
        lossy = plan is not None and any(each.tiling or each.storage for each in plan.components.values())
        if result.status == "wrong" and lossy:
            result = replace(result, reason=f"{result.reason}; its plan changes bits, which a bench can't judge")
        line = row_document(Row(candidate=candidate, result=result, rounds=1))
        took_s = self._clock() - began_s
        self._journal.add({**line, "round": round, "placement": placement, "took_s": took_s})
        self._watcher.on_result(name, result)
        return result

    def _after_round(self, report: RoundReport) -> None:
        self._trials.keep_only(report.racing)
        self._watcher.on_round(report)

    def _expect(self, seconds: float | None, candidates: int) -> None:
        if seconds is not None:
            self._watcher.on_expected(seconds, candidates)

    def _expect_anew(self, racers: list[Candidate], settings: BenchSettings, trial_s: float) -> None:
        """From the first trial, where nothing predicts: an emulated device computes as fast as this CPU."""
        if not self._predicts:
            expected = (len(racers) + (settings.rounds - 1) * len(racers) / 2) * trial_s
            self._expect(min(expected, settings.max_seconds), len(racers))

    @property
    def _predicts(self) -> bool:
        return self._asked.question.machine.gpu.device_kind == "cuda"

    def _predicted_s(self, racers: list[Candidate], settings: BenchSettings) -> float | None:
        """All rounds, of which about half of the field runs the later ones; None where seconds aren't predicted."""
        if not self._predicts:
            return None
        first = sum(self._trial_s(each) for each in racers)
        return min(first * (1 + (settings.rounds - 1) / 2), settings.max_seconds)

    def _trial_s(self, candidate: Candidate) -> float:
        predicted = candidate.plan.predicted if candidate.plan else None
        if predicted is None:
            return START_S
        world = self._trials.world
        left_out_s = (world.steps - world.trial_steps) * predicted.step_s.mid
        return START_S + predicted.load_s.mid + (2 if world.warm_up else 1) * (predicted.next_s.mid - left_out_s)

    def _predicted_step_s(self, racers: list[Candidate]) -> Mapping[str, float]:
        """Seconds of a generation for each step, as measured ones are counted; none for an emulated device."""
        if not self._predicts:
            return {}
        known = {each.name: each.predicted for each in racers if each.predicted is not None}
        return {name: each.next_s.mid / self._trials.world.steps for name, each in known.items()}

    def _results(self, racers: list[Candidate], outcome: RaceOutcome) -> BenchResults:
        question, found = self._asked.question, self._found
        rows = [self._row(each, outcome) for each in racers]
        if self._field.plain is not None and self._field.plain not in racers:
            rows.insert(0, self._plain_row(self._field.plain))
        for candidate, reason in self._field.left_out:
            rows.append(Row(candidate=candidate, result=TrialResult(status="skipped", reason=reason), rounds=0))
        samples = {name: tuple(rounds) for name, rounds in found.samples.items()}
        return BenchResults(
            model=question.inventory.path or str(question.inventory.family),
            workload=question.workload,
            machine=question.machine,
            device_kind=question.machine.gpu.device_kind,
            trial_steps=self._trials.world.trial_steps,
            rows=tuple(rows),
            winner=outcome.winner,
            reference=found.reference,
            samples=samples,
            standings=outcome.standings,
            versions=question.versions,
            notes=(*self._notes(), *condition_warnings(found.looks)),
        )

    def _row(self, candidate: Candidate, outcome: RaceOutcome) -> Row:
        standing = next(each for each in outcome.standings if each.name == candidate.name)
        trials = self._found.trials.get(candidate.name, [])
        result = together(trials) if trials else TrialResult(status="skipped")
        result = replace(result, status=standing.status, reason=standing.reason or result.reason)
        return Row(candidate=candidate, result=result, rounds=len(trials))

    def _plain_row(self, plain: Candidate) -> Row:
        reason = why_not(plain)
        result = self._found.beyond
        if result is None:
            return Row(candidate=plain, result=TrialResult(status="skipped", reason=reason), rounds=0)
        what = "ran once beyond the budget, for its digest" if result.digest else f"{result.status}: {result.reason}"
        only = TrialResult(status="skipped", reason=f"{reason}; {what}", digest=result.digest)
        return Row(candidate=plain, result=only, rounds=0)

    def _notes(self) -> list[str]:
        if not self._found.samples:
            return ["nothing ran to its end, so no output was compared."]
        notes = []
        if not self._predicts:
            notes.append("the GPU is emulated on the CPU: these seconds say nothing about any GPU.")
        world = self._trials.world
        if world.random_weights:
            notes.append("the weights were made at random: times and memory are the model's, pictures are noise.")
        for name, why in self._trials.unshared.items():
            notes.append(f"{name}: loaded anew for each trial, not shared between them: {why}.")
        if world.trial_steps < world.steps:
            notes.append(
                f"trials ran {world.trial_steps} of {world.steps} steps; totals count the others at the median step."
            )
        if self._field.plain is not None and self._found.reference != self._field.plain.name:
            notes.append(
                f"diffusers alone could not run, so outputs were compared with that of {self._found.reference}."
            )
        return notes


def key_facts(asked: SearchQuestion, world: TrialWorld) -> dict[str, object]:
    """What must be equal before measurements may be mixed."""
    question = asked.question
    gpu = question.machine.gpu
    return {
        "fingerprint": question.inventory.fingerprint,
        "workload": asdict(question.workload),
        "gpu": [gpu.device_kind, gpu.name, gpu.uuid, gpu.driver, gpu.total_bytes],
        "vram": gpu.free_bytes if gpu.source.endswith("--vram") else None,
        "ram": world.host_bytes,
        "headroom": question.machine.headroom_bytes,
        "link": world.link_bytes_per_s,
        "call": dict(world.call),
        "versions": dict(question.versions),
    }
