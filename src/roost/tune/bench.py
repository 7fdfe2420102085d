"""The bench: the reference, the race of the candidates, and what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate

from roost.plan.results import Shortage, Standing, TrialResult
from roost.planner.search_question import SearchQuestion
from roost.tune.race.race import RaceOutcome, RaceSettings, RoundReport, race
from roost.tune.results.disturbances import condition_warnings
from roost.tune.results.figures import measurement, predicted_step_s, together
from roost.tune.results.records import BenchResults, Candidate, Measurement, Row
from roost.tune.trials.candidates import Field, why_unfit
from roost.tune.trials.journal import Journal, journal_key, journal_path, only_bench
from roost.tune.trials.recorded import BenchWatcher, RecordedTrials
from roost.tune.trials.runner import Trials, TrialWorld, expected_s
from roost.units import format_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """How much is measured. ``max_seconds`` bounds the whole bench, but for one trial that runs when it ends.

    ``fresh`` forgets what an interrupted bench has measured.
    """

    rounds: int = 3
    max_seconds: float = 300.0
    fresh: bool = False


@dataclass(slots=True)
class _Found:
    """What the trials have found so far."""

    trials: dict[str, list[TrialResult]] = field(default_factory=dict)
    samples: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)
    beyond: TrialResult | None = None  # of plain diffusers, which did not fit the budget


class Bench:
    """One bench. ``run`` may be interrupted at any time: the journal then has every trial that ended."""

    def __init__(
        self, asked: SearchQuestion, entrants: Field, trials: Trials, journal: Journal, watcher: BenchWatcher
    ) -> None:
        self._asked, self._field, self._world, self._journal = asked, entrants, trials.world, journal
        self._watcher, self._running = watcher, trials
        self._trials = RecordedTrials(
            trials, journal, watcher, asked.question.machine.gpu, same_bits=entrants.plain is not None
        )
        self._found = _Found()

    def run(self, settings: BenchSettings) -> BenchResults:
        """Measures the field; never raises for what a candidate does."""
        began_s = self._trials.clock()
        plain = self._field.plain
        fits = plain is not None and why_unfit(plain) is None
        racers = [*([plain] if plain is not None and fits else []), *self._field.racing]
        if self._predicts:
            self._expect([expected_s(each, self._world) for each in racers], settings)
        if plain is not None and not fits and racers:
            self._measure_reference(plain)
            took_s = self._trials.clock() - began_s
            if self._found.beyond is not None and self._found.beyond.step_seconds and not self._predicts:
                self._expect([took_s] * len(racers), settings, spent_s=took_s)
        outcome = self._race(racers, settings, began_s)
        self._journal.finish()
        return self._results(racers, outcome, settings)

    @property
    def _predicts(self) -> bool:
        """An emulated device computes as fast as this CPU, which nobody predicts."""
        return self._asked.question.machine.gpu.device_kind == "cuda"

    def _race(self, racers: Sequence[Candidate], settings: BenchSettings, began_s: float) -> RaceOutcome:
        """In the field's order, which is that of promise: who time is too short for is predicted to be the slowest."""
        by_name = {each.name: each for each in racers}
        return race(
            list(by_name),
            lambda name, abort_after_s: self._measure(by_name[name], abort_after_s),
            RaceSettings(
                rounds=settings.rounds,
                budget_s=max(0.0, settings.max_seconds - (self._trials.clock() - began_s)),
                predicted_step_s=predicted_step_s(racers, self._world.steps) if self._predicts else {},
            ),
            self._after_round,
            self._trials.clock,
        )

    def _measure_reference(self, plain: Candidate) -> None:
        """Diffusers alone beyond the budget, where the machine has the memory: for its digest."""
        if self._can_exceed_budget(plain):
            self._found.beyond = self._trials.run(plain, 0, bound=False)

    def _can_exceed_budget(self, plain: Candidate) -> bool:
        machine, predicted = self._asked.question.machine, plain.plan.predicted if plain.plan else None
        if machine.gpu.device_kind == "emulated":
            return 2 * self._asked.question.inventory.load_bytes < machine.host.available_bytes
        return predicted is not None and predicted.peak_bytes.mid < machine.gpu.total_bytes

    def _measure(self, candidate: Candidate, abort_after_s: float | None) -> Measurement:
        rounds = self._found.trials.setdefault(candidate.name, [])
        result = self._trials.run(candidate, len(rounds) + 1, abort_after_s)
        rounds.append(result)
        seen = measurement(result, self._world.steps)
        if seen.status == "ok":
            self._found.samples.setdefault(candidate.name, []).append(seen.step_s)
        return seen

    def _after_round(self, report: RoundReport) -> None:
        self._running.keep_only(report.racing)
        self._watcher.on_round(report)

    def _expect(self, trials_s: Sequence[float], settings: BenchSettings, spent_s: float = 0.0) -> None:
        """Says how long all rounds take, of which about half of the field runs the later ones, and what time holds."""
        left_s = settings.max_seconds - spent_s
        all_s = sum(trials_s) * (1 + (settings.rounds - 1) / 2)
        self._watcher.on_expected(min(all_s, settings.max_seconds), len(trials_s))
        reached = sum(each <= left_s for each in accumulate(trials_s))
        if reached < len(trials_s):
            self._watcher.on_shortage(max(1, reached), len(trials_s), max(0.0, left_s))

    def _results(self, racers: list[Candidate], outcome: RaceOutcome, settings: BenchSettings) -> BenchResults:
        question, found = self._asked.question, self._found
        rows = [self._row(each, standing) for each, standing in zip(racers, outcome.standings, strict=True)]
        if self._field.plain is not None and self._field.plain not in racers:
            rows.insert(0, self._plain_row(self._field.plain))
        for candidate, reason in self._field.left_out:
            rows.append(Row(candidate=candidate, result=TrialResult(status="skipped", reason=reason), rounds=0))
        samples = {name: tuple(rounds) for name, rounds in found.samples.items()}
        shortage = _shortage(outcome, settings)
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
            standings=outcome.standings,
            versions=question.versions,
            shortage=shortage,
            notes=(*self._notes(shortage), *condition_warnings(self._trials.looks)),
        )

    def _row(self, candidate: Candidate, standing: Standing) -> Row:
        trials = self._found.trials.get(candidate.name, [])
        result = together(trials) if trials else TrialResult(status="skipped")
        result = replace(result, status=standing.status, reason=standing.reason or result.reason)
        return Row(candidate=candidate, result=result, rounds=len(trials))

    def _plain_row(self, plain: Candidate) -> Row:
        reason = why_unfit(plain)
        result = self._found.beyond
        if result is None:
            return Row(candidate=plain, result=TrialResult(status="skipped", reason=reason), rounds=0)
        what = "ran once beyond the budget, for its digest" if result.digest else f"{result.status}: {result.reason}"
        only = TrialResult(status="skipped", reason=f"{reason}; {what}", digest=result.digest)
        return Row(candidate=plain, result=only, rounds=0)

    def _notes(self, shortage: Shortage | None) -> list[str]:
        notes = [] if shortage is None else [_shortage_note(shortage)]
        cache = self._asked.question.cache
        if cache is not None:
            notes.append(
                f"everyone has the cache {cache.text}, diffusers alone too: it changes what is generated, and what it"
                " skips in trials of few steps is not what it skips in a whole generation."
            )
        if not self._found.samples:
            return [*notes, "nothing ran to its end, so no output was compared."]
        if not self._predicts:
            notes.append("the GPU is emulated on the CPU: these seconds say nothing about any GPU.")
        world = self._world
        if world.random_weights:
            notes.append("the weights were made at random: times and memory are the model's, pictures are noise.")
        if world.trial_steps < world.steps:
            notes.append(
                f"trials ran {world.trial_steps} of {world.steps} steps; totals count the others at the median step."
            )
        if self._field.plain is not None and self._trials.reference != self._field.plain.name:
            notes.append(
                f"diffusers alone could not run, so outputs were compared with that of {self._trials.reference}."
            )
        return notes


def _shortage(outcome: RaceOutcome, settings: BenchSettings) -> Shortage | None:
    if not outcome.untimed:
        return None
    raced = len(outcome.standings) - len(outcome.untimed)
    return Shortage(max_seconds=settings.max_seconds, raced=raced, left_out=outcome.untimed)


def _shortage_note(shortage: Shortage) -> str:
    count = shortage.raced + len(shortage.left_out)
    return (
        f"{format_seconds(shortage.max_seconds)} were too short for all: {shortage.raced} of {count} candidates were"
        " raced, the best predicted first; give it more seconds to race the others too."
    )


def measure_field(
    asked: SearchQuestion,
    entrants: Field,
    world: TrialWorld,
    settings: BenchSettings,
    watcher: BenchWatcher,
) -> BenchResults:
    """The only bench of its device meanwhile, with a journal that takes up what an interrupted one has measured."""
    key = journal_key(key_facts(asked, world))
    with only_bench(asked.question.machine.gpu), Trials(world) as trials:
        journal = Journal(journal_path(key), key, fresh=settings.fresh)
        watcher.on_begin(world.device_kind, journal.trials)
        try:
            return Bench(asked, entrants, trials, journal, watcher).run(settings)
        except KeyboardInterrupt:
            watcher.on_interrupt(journal.trials)
            raise


def key_facts(asked: SearchQuestion, world: TrialWorld) -> dict[str, object]:
    """What must be equal before measurements may be mixed."""
    question = asked.question
    gpu = question.machine.gpu
    return {
        "fingerprint": question.inventory.fingerprint,
        "workload": asdict(question.workload),
        "gpu": [gpu.device_kind, gpu.name, gpu.uuid, gpu.driver, gpu.total_bytes],
        "vram": gpu.free_bytes if gpu.vram_typed else None,
        "ram": world.host_bytes,
        "headroom": question.machine.headroom_bytes,
        "link": world.link_bytes_per_s,
        "call": dict(world.call),
        "versions": dict(question.versions),
        **({} if question.cache is None else {"cache": asdict(question.cache)}),
        **({} if question.attention is None else {"attention": question.attention}),
        **({"loras": [each.model_dump() for each in question.loras]} if question.loras else {}),
    }
