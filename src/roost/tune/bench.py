"""The bench: the reference, a heat where time is short, the race of the candidates, and what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from roost.planner.search_plan import SearchQuestion
from roost.tune.candidates import Field, why_not
from roost.tune.cuts import choose_cut
from roost.tune.disturbances import condition_warnings
from roost.tune.expected import (
    HEATS_SHARE,
    TrialCost,
    all_rounds_s,
    each_step_s,
    heat_is_due,
    heat_s,
    measured_cost,
    predicted_cost,
)
from roost.tune.figures import measurement, together
from roost.tune.heats import HeatOutcome, in_heat_order, run_heat
from roost.tune.journal import Journal
from roost.tune.race import RaceOutcome, RaceSettings, RoundReport, race
from roost.tune.recorded import RecordedTrials
from roost.tune.records import BenchResults, Candidate, Measurement, Row, Standing, TrialResult
from roost.tune.trials import Trials, TrialWorld
from roost.tune.watcher import Watcher


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
    beyond: TrialResult | None = None  # of plain diffusers, which did not fit the budget
    ahead: dict[str, TrialResult] = field(default_factory=dict)  # of the first candidate, before the race
    measured: TrialCost | None = None  # of the first whole trial, which stands for all where nothing predicts
    heat: HeatOutcome | None = None


class Bench:
    """One bench. ``run`` may be interrupted at any time: the journal then has every trial that ended."""

    def __init__(
        self, asked: SearchQuestion, entrants: Field, trials: Trials, journal: Journal, watcher: Watcher
    ) -> None:
        self._asked, self._field, self._world, self._journal = asked, entrants, trials.world, journal
        self._watcher, self._running = watcher, trials
        self._trials = RecordedTrials(
            trials, journal, watcher, asked.question.machine.gpu, same_bits=entrants.plain is not None
        )
        self._found = _Found()
        self._ahead_s = 0.0  # what a trial took that the race will count as its own

    def run(self, settings: BenchSettings) -> BenchResults:
        """Measures the field; never raises for what a candidate does."""
        began_s = self._clock()
        plain = self._field.plain
        fits = plain is not None and why_not(plain) is None
        racers = [*([plain] if plain is not None and fits else []), *self._field.racing]
        if self._predicts:
            whole_s = sum(predicted_cost(each, self._world).seconds for each in racers)
            self._expect(whole_s, racers, settings)
        if plain is not None and not fits and racers:
            self._measure_reference(plain)
            if self._found.measured is not None and not self._predicts:
                self._expect(len(racers) * self._found.measured.seconds, racers, settings)
        self._heat(racers, settings, began_s)
        outcome = self._race(racers, settings, began_s)
        self._journal.finish()
        return self._results(racers, outcome)

    @property
    def _predicts(self) -> bool:
        """An emulated device computes as fast as this CPU, which nobody predicts."""
        return self._asked.question.machine.gpu.device_kind == "cuda"

    def _clock(self) -> float:
        return self._trials.clock() - self._ahead_s

    def _race(self, racers: Sequence[Candidate], settings: BenchSettings, began_s: float) -> RaceOutcome:
        order = racers if self._found.heat is None else in_heat_order(racers, self._found.heat)
        order = sorted(order, key=lambda each: each.name not in self._found.ahead)  # what is known costs no time
        by_name = {each.name: each for each in order}
        if not self._found.ahead.keys() <= by_name.keys():
            self._ahead_s = 0.0  # nobody's any more
        return race(
            list(by_name),
            lambda name, abort_after_s: self._measure(by_name[name], abort_after_s),
            RaceSettings(
                rounds=settings.rounds,
                budget_s=max(0.0, settings.max_seconds - (self._clock() - began_s)),
                predicted_step_s=each_step_s(racers, self._world.steps) if self._predicts else {},
            ),
            self._after_round,
            self._clock,
        )

    def _measure_reference(self, plain: Candidate) -> None:
        """Diffusers alone beyond the budget, where the machine has the memory: for its digest."""
        if self._can_exceed_budget(plain):
            began_s = self._clock()
            self._found.beyond = self._trials.run(plain, 0, bound=False)
            self._note_cost(self._found.beyond, self._clock() - began_s)

    def _can_exceed_budget(self, plain: Candidate) -> bool:
        machine, predicted = self._asked.question.machine, plain.plan.predicted if plain.plan else None
        if machine.gpu.device_kind == "emulated":
            return 2 * self._asked.question.inventory.load_bytes < machine.host.available_bytes
        return predicted is not None and predicted.peak_bytes.mid < machine.gpu.total_bytes

    def _heat(self, racers: Sequence[Candidate], settings: BenchSettings, began_s: float) -> None:
        """A heat, where the stacks can be cut and one whole round of all takes too long."""
        plans = {each.name: each.plan for each in racers if each.plan is not None}
        faithful = choose_cut(self._asked.question.inventory.components, plans)
        costs = self._costs(racers) if faithful is not None else None
        left_s = settings.max_seconds - (self._clock() - began_s) - self._ahead_s
        if faithful is None or costs is None or not heat_is_due(costs, faithful, left_s):
            return
        if not self._predicts:
            self._expect(sum(each.seconds for each in costs.values()), racers, settings)
        self._watcher.on_heat(faithful.cut, len(faithful.names), heat_s(costs, faithful))
        plain = self._field.plain
        beyond = plain if plain is not None and plain not in racers and self._can_exceed_budget(plain) else None
        self._found.heat = run_heat(racers, faithful, self._trials, HEATS_SHARE * left_s, beyond)
        self._watcher.on_heat_over(len(racers) - len(self._found.heat.out), self._found.heat.problem)

    def _costs(self, racers: Sequence[Candidate]) -> dict[str, TrialCost] | None:
        """What a trial of each takes: as predicted, or as the first whole trial, which is run for that."""
        if self._predicts:
            return {each.name: predicted_cost(each, self._world) for each in racers}
        if self._found.measured is None and self._found.beyond is None:
            began_s = self._clock()
            result = self._trials.run(racers[0], 1)
            self._ahead_s = self._clock() - began_s
            self._found.ahead[racers[0].name] = result
            self._note_cost(result, self._ahead_s)
        measured = self._found.measured
        return None if measured is None else dict.fromkeys((each.name for each in racers), measured)

    def _note_cost(self, result: TrialResult, took_s: float) -> None:
        if result.step_seconds:
            self._found.measured = measured_cost(took_s, result, self._world)

    def _measure(self, candidate: Candidate, abort_after_s: float | None) -> Measurement:
        rounds = self._found.trials.setdefault(candidate.name, [])
        if candidate.name in self._found.ahead:
            result, self._ahead_s = self._found.ahead.pop(candidate.name), 0.0
        else:
            result = self._trials.run(candidate, len(rounds) + 1, abort_after_s)
        rounds.append(result)
        seen = measurement(result, self._world.steps)
        if seen.status == "ok":
            self._found.samples.setdefault(candidate.name, []).append(seen.step_s)
        return seen

    def _after_round(self, report: RoundReport) -> None:
        self._running.keep_only(report.racing)
        self._watcher.on_round(report)

    def _expect(self, round_s: float, racers: Sequence[Candidate], settings: BenchSettings) -> None:
        """Says how long all rounds take; a heat comes where that is longer than the time there is."""
        self._watcher.on_expected(min(all_rounds_s(round_s, settings.rounds), settings.max_seconds), len(racers))

    def _results(self, racers: list[Candidate], outcome: RaceOutcome) -> BenchResults:
        question, found = self._asked.question, self._found
        standings = [self._standing(each, outcome) for each in racers]
        rows = [self._row(each, standing) for each, standing in zip(racers, standings, strict=True)]
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
            trial_steps=self._world.trial_steps,
            rows=tuple(rows),
            winner=outcome.winner,
            reference=self._trials.reference,
            samples=samples,
            standings=tuple(standings),
            versions=question.versions,
            heat=None if found.heat is None else found.heat.record,
            notes=(*self._notes(), *condition_warnings(self._trials.looks)),
        )

    def _out_of_heat(self, candidate: Candidate) -> Standing | None:
        if self._found.heat is None or candidate.name not in self._found.heat.out:
            return None
        status, reason = self._found.heat.out[candidate.name]
        return Standing(name=candidate.name, status=status, reason=reason)

    def _standing(self, candidate: Candidate, outcome: RaceOutcome) -> Standing:
        out = self._out_of_heat(candidate)
        return out or next(each for each in outcome.standings if each.name == candidate.name)

    def _row(self, candidate: Candidate, standing: Standing) -> Row:
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
        notes = [self._found.heat.note] if self._found.heat is not None else []
        if not self._predicts:
            notes.append("the GPU is emulated on the CPU: these seconds say nothing about any GPU.")
        world = self._world
        if world.random_weights:
            notes.append("the weights were made at random: times and memory are the model's, pictures are noise.")
        for name, why in self._running.unshared.items():
            notes.append(f"{name}: loaded anew for each trial, not shared between them: {why}.")
        if world.trial_steps < world.steps:
            notes.append(
                f"trials ran {world.trial_steps} of {world.steps} steps; totals count the others at the median step."
            )
        if self._field.plain is not None and self._trials.reference != self._field.plain.name:
            notes.append(
                f"diffusers alone could not run, so outputs were compared with that of {self._trials.reference}."
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
